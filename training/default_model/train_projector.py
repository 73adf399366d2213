"""Train the multi-vector projector of the default model, and a LoRA on it for each task.

ADAPTER_DIR has the adapters of all tasks, as training.default_model.train wrote them; the projector is added to the
same file. The model does not change: its token states are computed once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from training.default_model.adapters import ALPHA, RANK, load_adapter, projector_tensors, save
from training.default_model.encoder import TASKS, load_backbone
from training.default_model.late_interaction import (
    Projector,
    binary,
    maxsim,
    maxsim_in_parts,
    pooled,
    principal_projection,
)
from training.default_model.recipes import read_recipe
from training.default_model.scoring import ndcg_at_10, scores
from training.default_model.settings import PROJECTOR, SETTINGS, ProjectorSettings
from training.default_model.token_states import TokenStates
from training.default_model.training_sets import Pair, endless
from training.program import add_backbone, add_training_sets, program

EXAMPLES = """example:
  python -m training.default_model.train_projector BACKBONE_DIR --data TRAIN_DIR -o ADAPTER_DIR"""


@dataclass(frozen=True)
class PairStates:
    """Token states of one set's pairs; query and passage of a pair have the same index."""

    name: str
    queries: TokenStates
    passages: TokenStates

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.queries.rows)


@dataclass(frozen=True)
class TaskStates:
    """Token states of one task's pairs, for training and held out."""

    train: list[PairStates]
    held_out: list[PairStates]


def read_states(backbone: Path, folder: Path, adapters: Path, task: str, settings: ProjectorSettings) -> TaskStates:
    """Compute the token states of one task with its adapter."""
    bare = load_backbone(backbone, SETTINGS[task].max_tokens)
    encoder = load_adapter(bare, adapters, task)
    sets = list(read_recipe(task, folder, SETTINGS[task]).prompted(settings.pairs))

    def states(name: str, pairs: Sequence[Pair]) -> PairStates:
        queries = TokenStates.of(encoder, [pair.query for pair in pairs])
        return PairStates(name, queries, TokenStates.of(encoder, [pair.passage for pair in pairs]))

    return TaskStates(
        [states(prompted.name, prompted.train) for prompted in sets],
        [states(prompted.name, prompted.held_out) for prompted in sets if prompted.held_out],
    )


def start(states: Sequence[TaskStates], settings: ProjectorSettings) -> Projector:
    """Projector onto the principal directions of all tasks' token states."""
    torch.manual_seed(settings.seed)
    rows = [row for task in states for pairs in task.train for row in pairs.passages.rows[: settings.principal_texts]]
    weight, bias = principal_projection(torch.cat(rows).float())
    return Projector(weight, bias, RANK, ALPHA)


def loss(
    projector: Projector, task: str, pairs: PairStates, indices: Sequence[int], settings: ProjectorSettings
) -> Tensor:
    """InfoNCE on MaxSim with float documents, with binary ones, and with pooled binary ones, weighted and summed."""
    queries = projector(pairs.queries.batch(indices), task)
    documents = projector(pairs.passages.batch(indices), task)
    with torch.no_grad():
        center = documents.values[documents.mask == 1].mean(0)
    targets = torch.arange(len(indices))
    lengths = queries.mask.sum(1, keepdim=True)
    total = torch.zeros(())
    for weight, compared in (
        (1.0, documents),
        (settings.binary, binary(documents, center)),
        (settings.pooled, binary(pooled(documents), center)),
    ):
        logits = maxsim(queries, compared) / lengths / settings.temperature
        total = total + weight * (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2
    return total


def train(projector: Projector, states: Sequence[TaskStates], settings: ProjectorSettings) -> None:
    """Train the projector and its LoRAs in place; tasks alternate, sets are drawn in proportion to their pairs."""
    rng = random.Random(settings.seed)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    streams = [[endless(range(len(pairs)), settings.batch, rng) for pairs in task.train] for task in states]
    begin = time.monotonic()
    for step in range(settings.steps):
        task = step % len(TASKS)
        sets = states[task].train
        index = rng.choices(range(len(sets)), weights=[len(pairs) for pairs in sets])[0]
        value = loss(projector, TASKS[task], sets[index], next(streams[task][index]), settings)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        scheduler.step()
        if (step + 1) % 150 == 0 or step + 1 == settings.steps:
            print(f"step {step + 1}: loss {value.item():.4f}, {time.monotonic() - begin:.0f} s", flush=True)


@torch.no_grad()
def report(projector: Projector, states: Sequence[TaskStates]) -> None:
    """Print nDCG@10 on held-out pairs, one line a set: single vectors, multi-vectors, compressed multi-vectors."""
    for task, task_states in zip(TASKS, states, strict=True):
        for pairs in task_states.held_out:
            indices = range(len(pairs))
            queries = projector(pairs.queries.batch(indices), task)
            documents = projector(pairs.passages.batch(indices), task)
            center = documents.values[documents.mask == 1].mean(0)
            similarity = {
                "single": scores(pairs.queries.means(), pairs.passages.means(), 384),
                "multi": maxsim_in_parts(queries, documents),
                "binary": maxsim_in_parts(queries, binary(documents, center)),
                "pooled binary": maxsim_in_parts(queries, binary(pooled(documents), center)),
            }
            relevant = [{index} for index in indices]
            values = (f"{name} {ndcg_at_10(score, relevant).mean().item():.4f}" for name, score in similarity.items())
            print(f"held out, {task}: {pairs.name}: nDCG@10 {', '.join(values)}", flush=True)


def main() -> None:
    """Run the command line."""
    parser = program("default_model.train_projector", __doc__, EXAMPLES)
    add_backbone(parser)
    add_training_sets(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="ADAPTER_DIR", help="adapter folder to extend")
    options = parser.parse_args()

    torch.set_num_threads(PROJECTOR.threads)
    torch.use_deterministic_algorithms(True)
    states = [read_states(options.backbone, options.data, options.out, task, PROJECTOR) for task in TASKS]
    projector = start(states, PROJECTOR)
    report(projector, states)
    train(projector, states, PROJECTOR)
    report(projector, states)
    save(projector_tensors(projector), options.out)


if __name__ == "__main__":
    main()
