"""Train the ColBERT on mined groups. A stopped run goes on from its last checkpoint."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from training.default_colbert.model import ColBERT, fresh_colbert, load_colbert, save_colbert
from training.default_colbert.settings import DIMENSIONS, SETTINGS, Settings
from training.default_model.encoder import NO_PROMPTS, encode, load_backbone
from training.default_model.late_interaction import maxsim
from training.default_model.metrics import late_scores
from training.default_model.scoring import ndcg_at_10, scores
from training.hard_negatives.groups import Group, read_groups
from training.hard_negatives.sources import SOURCES, read_source
from training.program import add_backbone, add_training_sets, program

HELD_OUT_QUERIES = 200

EXAMPLES = """example:
  python -m training.default_colbert.train BACKBONE_DIR groups.jsonl.gz --data TRAIN_DIR -o OUT_DIR"""


@dataclass
class Run:
    """A training run: the model, its optimizer, and the number of steps done."""

    colbert: ColBERT
    optimizer: AdamW
    path: Path  # of the checkpoint
    step: int = 0

    @classmethod
    def start(cls, colbert: ColBERT, path: Path, settings: Settings) -> Run:
        """Begin, or go on from the checkpoint if there is one."""
        lora = [parameter for parameter in colbert.model.parameters() if parameter.requires_grad]
        rates = [
            {"params": lora, "peak": settings.learning_rate},
            {"params": [colbert.dense], "peak": settings.dense_learning_rate},
        ]
        run = cls(colbert, AdamW(rates, weight_decay=0.0), path)
        if path.exists():
            saved = torch.load(path, weights_only=True)
            set_peft_model_state_dict(colbert.model, saved["adapter"])
            colbert.dense.data = saved["dense"]
            run.optimizer.load_state_dict(saved["optimizer"])
            run.step = saved["step"]
        return run

    def save(self) -> None:
        """Write the checkpoint; a stop while it is written leaves the previous one."""
        state = {
            "adapter": get_peft_model_state_dict(self.colbert.model),
            "dense": self.colbert.dense.data,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)


@torch.no_grad()
def principal_directions(colbert: ColBERT, texts: Sequence[str], max_tokens: int) -> Tensor:
    """Directions [128, 384] that hold most of the token states' squared length."""
    states = torch.cat(colbert.states(texts, "document", max_tokens).rows())
    _, vectors = torch.linalg.eigh(states.T @ states)
    return vectors[:, -DIMENSIONS:].flip(1).T.contiguous()


def batches(groups: Sequence[Group], settings: Settings) -> list[list[Group]]:
    """All groups once, in batches of one set each, which are mixed; the rest of a set that fills no batch is left."""
    rng = random.Random(settings.seed)
    found = []
    for source in SOURCES:
        own = [group for group in groups if group.source == source.name]
        rng.shuffle(own)
        found += [own[start : start + settings.queries] for start in range(0, len(own), settings.queries)]
    full = [batch for batch in found if len(batch) == settings.queries]
    rng.shuffle(full)
    return full


def loss(colbert: ColBERT, batch: Sequence[Group], settings: Settings) -> Tensor:
    """InfoNCE over MaxSim per query token: each query against the documents of all groups of the batch."""
    documents = [group.documents[rank] for rank in range(settings.negatives + 1) for group in batch]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        query_states = colbert.states([group.query for group in batch], "query", settings.max_tokens)
        document_states = colbert.states(documents, "document", settings.max_tokens)
    queries, vectors = colbert.project(query_states), colbert.project(document_states)
    logits = maxsim(queries, vectors) / queries.mask.sum(1, keepdim=True) / settings.temperature
    return cross_entropy(logits, torch.arange(len(batch)))


def factor(step: int, steps: int, settings: Settings) -> float:
    """Factor of the learning rates: linear warm-up, then linear decay to zero."""
    warmup = max(1, round(steps * settings.warmup))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def train(run: Run, steps: Sequence[Sequence[Group]], settings: Settings) -> None:
    """Train in place, with a checkpoint every few minutes."""
    begin = time.monotonic()
    for batch in steps[run.step :]:
        for group in run.optimizer.param_groups:
            group["lr"] = group["peak"] * factor(run.step, len(steps), settings)
        value = loss(run.colbert, batch, settings)
        run.optimizer.zero_grad()
        torch.autograd.backward(value)
        run.optimizer.step()
        run.step += 1
        if run.step % settings.checkpoint_steps == 0 or run.step == len(steps):
            seconds = time.monotonic() - begin
            print(f"step {run.step}/{len(steps)}: loss {value.item():.4f}, {seconds:.0f} s", flush=True)
            run.save()


@torch.no_grad()
def report(colbert: ColBERT, backbone: Path, folder: Path) -> None:
    """Print nDCG@10 on held-out pairs, one line a set: single vectors of the backbone, multi-vectors."""
    bare = load_backbone(backbone, 256)
    for source in SOURCES:
        pairs = read_source(source, folder).held_out
        queries, documents = [pair.query for pair in pairs[:HELD_OUT_QUERIES]], [pair.passage for pair in pairs]
        single = scores(encode(bare, queries, NO_PROMPTS.query), encode(bare, documents, NO_PROMPTS.passage), 384)
        multi = late_scores(colbert.encode(queries, "query"), colbert.encode(documents, "document"))
        relevant = [{index} for index in range(len(queries))]
        values = (f"{ndcg_at_10(score, relevant).mean().item():.4f}" for score in (single, multi))
        print(f"held out: {source.name}: nDCG@10 single and multi-vectors {', '.join(values)}", flush=True)


def main() -> None:
    """Run the command line."""
    parser = program("default_colbert.train", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("groups", type=Path, metavar="GROUPS", help="file of training.hard_negatives.mine")
    add_training_sets(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT_DIR", help="folder to write")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    groups = read_groups(options.groups)
    colbert = fresh_colbert(options.backbone, SETTINGS.seed)
    texts = [group.documents[0] for group in groups[:: max(1, len(groups) // SETTINGS.principal_texts)]]
    colbert.dense.data = principal_directions(colbert, texts, SETTINGS.max_tokens)
    run = Run.start(colbert, options.out.with_suffix(".checkpoint"), SETTINGS)
    train(run, batches(groups, SETTINGS), SETTINGS)
    save_colbert(colbert, options.out)
    run.path.unlink(missing_ok=True)
    report(load_colbert(options.backbone, options.out), options.backbone, options.data)


if __name__ == "__main__":
    main()
