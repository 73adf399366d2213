"""Train the cross-encoder on mined groups. A stopped run goes on from its last checkpoint."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from peft import get_peft_model_state_dict
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from training.default_reranker.cross_encoder import (
    CrossEncoder,
    fresh_cross_encoder,
    load_adapter_tensors,
    load_cross_encoder,
    reduce_frozen_layers,
    save_cross_encoder,
    start_from_colbert,
)
from training.default_reranker.groups import Group, read_groups
from training.default_reranker.held_out import read_held_out, report
from training.default_reranker.losses import TokenHead, ranking_loss, targets
from training.default_reranker.settings import SETTINGS, Settings
from training.program import add_backbone, add_training_sets, program

REPORTED = 25  # steps between lines of the log

EXAMPLES = """example:
  python -m training.default_reranker.train BACKBONE_DIR COLBERT_DIR groups.jsonl.gz --data TRAIN_DIR -o OUT_DIR"""


@dataclass
class Run:
    """A training run: the model, its optimizer, and the number of steps done."""

    encoder: CrossEncoder
    head: TokenHead
    optimizer: AdamW
    path: Path  # of the checkpoint
    step: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)  # of the ranking and of the tokens

    @classmethod
    def start(cls, encoder: CrossEncoder, head: TokenHead, path: Path, settings: Settings) -> Run:
        """Begin, or go on from the checkpoint if there is one."""
        trained = {name: value for name, value in encoder.model.named_parameters() if value.requires_grad}
        pooler = [value for name, value in trained.items() if ".pooler." in name]
        others = [value for name, value in trained.items() if ".pooler." not in name]
        rates = [
            {"params": [*others, *head.parameters()], "peak": settings.learning_rate},
            {"params": pooler, "peak": settings.pooler_learning_rate},
        ]
        run = cls(encoder, head, AdamW(rates, weight_decay=0.0), path)
        if path.exists():
            saved = torch.load(path, weights_only=True)
            load_adapter_tensors(encoder, saved["adapter"])
            head.load_state_dict(saved["head"])
            run.optimizer.load_state_dict(saved["optimizer"])
            run.step = saved["step"]
        return run

    def save(self) -> None:
        """Write the checkpoint; a stop while it is written leaves the previous one."""
        state = {
            "adapter": get_peft_model_state_dict(self.encoder.model),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)

    def progress(self) -> str:
        """Means of the last losses."""
        ranking, tokens = (sum(values) / len(values) for values in zip(*self.losses[-2 * REPORTED :], strict=True))
        return f"loss of the ranking {ranking:.4f}, of the tokens {tokens:.4f}"


def batches(groups: Sequence[Group], settings: Settings) -> list[list[Group]]:
    """All groups once, mixed."""
    mixed = random.Random(settings.seed).sample(groups, len(groups))
    return [mixed[start : start + settings.groups] for start in range(0, len(mixed), settings.groups)]


def loss(run: Run, batch: Sequence[Group], settings: Settings) -> Tensor:
    """Loss of the ranking plus that of the query tokens; pairs of similar length run together."""
    pairs = [(group, rank) for group in batch for rank in range(len(group.documents))]
    queries = [group.query for group, _ in pairs]
    documents = [group.documents[rank] for group, rank in pairs]
    scores, token_losses, order = [], [], []
    for chosen in run.encoder.batches(queries, documents):
        states = run.encoder.states([queries[index] for index in chosen], [documents[index] for index in chosen])
        rows = [group.tokens[rank] for group, rank in (pairs[index] for index in chosen)]
        token_losses.append(run.head.loss(states, rows))
        scores.append(states.scores)
        order += chosen
    ordered = torch.cat(scores)[torch.tensor(order).argsort()].view(len(batch), -1)
    ranking = ranking_loss(ordered, targets(batch, settings), settings)
    tokens = torch.stack(token_losses).sum() / len(pairs)
    run.losses.append((ranking.item(), tokens.item()))
    return ranking + settings.token_weight * tokens


def factor(step: int, steps: int, settings: Settings) -> float:
    """Factor of the learning rates: linear warm-up, then linear decay to zero."""
    warmup = max(1, round(steps * settings.warmup))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def train(run: Run, steps: Sequence[Sequence[Group]], settings: Settings) -> None:
    """Train in place, with a checkpoint every few minutes."""
    begin = time.monotonic()
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    for batch in steps[run.step :]:
        for group in run.optimizer.param_groups:
            group["lr"] = group["peak"] * factor(run.step, len(steps), settings)
        run.optimizer.zero_grad()
        torch.autograd.backward(loss(run, batch, settings))
        clip_grad_norm_(parameters, 1.0)
        run.optimizer.step()
        run.step += 1
        if run.step % REPORTED == 0:
            print(f"step {run.step}/{len(steps)}: {run.progress()}, {time.monotonic() - begin:.0f} s", flush=True)
        if run.step % settings.checkpoint_steps == 0:
            run.save()


def main() -> None:
    """Run the command line."""
    parser = program("default_reranker.train", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("colbert", type=Path, metavar="COLBERT_DIR", help="folder whose LoRA the training starts from")
    parser.add_argument("groups", type=Path, metavar="GROUPS", help="file of training.default_reranker.mine")
    add_training_sets(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT_DIR", help="adapter folder to write")
    parser.add_argument("--learning-rate", type=float, default=SETTINGS.learning_rate, help="default: %(default)s")
    steps = "number of steps; default: all groups once"
    parser.add_argument("--steps", type=int, metavar="N", help=steps)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    settings = replace(SETTINGS, learning_rate=options.learning_rate)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    groups = read_groups(options.groups)
    encoder = fresh_cross_encoder(options.backbone, settings.max_tokens, settings.seed)
    start_from_colbert(encoder, options.colbert)
    reduce_frozen_layers(encoder)
    head = TokenHead(groups, encoder.base.config.hidden_size)
    run = Run.start(encoder, head, options.out.with_suffix(".checkpoint"), settings)
    train(run, batches(groups, settings)[: options.steps], settings)
    save_cross_encoder(encoder, options.out)
    run.path.unlink(missing_ok=True)
    trained = load_cross_encoder(options.backbone, options.out, settings.max_tokens)
    for line in report(trained, read_held_out(options.backbone, options.data, settings)):
        print(f"held out: {line}", flush=True)


if __name__ == "__main__":
    main()
