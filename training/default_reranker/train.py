"""Train the cross-encoder on mined groups. A stopped run goes on from its last checkpoint."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import get_peft_model_state_dict
from torch import Tensor
from torch.optim import AdamW

from training.default_reranker.cross_encoder import (
    CrossEncoder,
    fresh_cross_encoder,
    load_adapter_tensors,
    load_cross_encoder,
    reduce_frozen_layers,
    save_cross_encoder,
)
from training.default_reranker.held_out import read_held_out, report
from training.default_reranker.losses import label_loss, teacher_loss
from training.default_reranker.settings import SETTINGS, Settings
from training.hard_negatives.groups import Group, read_groups
from training.program import add_backbone, add_training_sets, program

EXAMPLES = """example:
  python -m training.default_reranker.train BACKBONE_DIR groups.jsonl.gz --data TRAIN_DIR -o OUT_DIR"""


@dataclass
class Run:
    """A training run: the model, its optimizer, and the number of steps done."""

    encoder: CrossEncoder
    optimizer: AdamW
    path: Path  # of the checkpoint
    step: int = 0

    @classmethod
    def start(cls, encoder: CrossEncoder, path: Path, settings: Settings) -> Run:
        """Begin, or go on from the checkpoint if there is one."""
        parameters = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
        run = cls(encoder, AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0), path)
        if path.exists():
            saved = torch.load(path, weights_only=True)
            load_adapter_tensors(encoder, saved["adapter"])
            run.optimizer.load_state_dict(saved["optimizer"])
            run.step = saved["step"]
        return run

    def save(self) -> None:
        """Write the checkpoint; a stop while it is written leaves the previous one."""
        adapter = get_peft_model_state_dict(self.encoder.model)
        part = self.path.with_suffix(".part")
        torch.save({"adapter": adapter, "optimizer": self.optimizer.state_dict(), "step": self.step}, part)
        part.replace(self.path)


def batches(groups: Sequence[Group], settings: Settings) -> list[list[Group]]:
    """All groups once, mixed; training takes the first ones."""
    mixed = random.Random(settings.seed).sample(groups, len(groups))
    return [mixed[start : start + settings.groups] for start in range(0, len(mixed), settings.groups)]


def loss(encoder: CrossEncoder, batch: Sequence[Group], settings: Settings) -> Tensor:
    """Loss of the label plus that of the teacher's ranking; all groups of a batch have equally many documents."""
    queries = [group.query for group in batch for _ in group.documents]
    documents = [document for group in batch for document in group.documents]
    scores = encoder(queries, documents).view(len(batch), -1)
    teacher = torch.tensor([group.teacher for group in batch])
    taught = teacher_loss(scores, teacher, settings.teacher_temperature)
    return label_loss(scores) + settings.teacher_weight * taught


def learning_rate(step: int, steps: int, settings: Settings) -> float:
    """Linear warm-up, then linear decay to zero."""
    warmup = max(1, round(steps * settings.warmup))
    return settings.learning_rate * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def train(run: Run, steps: Sequence[Sequence[Group]], settings: Settings) -> None:
    """Train in place, with a checkpoint every few minutes."""
    begin = time.monotonic()
    recent: list[float] = []
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    for batch in steps[run.step :]:
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(run.step, len(steps), settings)
        value = loss(run.encoder, batch, settings)
        run.optimizer.zero_grad()
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        run.optimizer.step()
        run.step += 1
        recent = [*recent, value.item()][-50:]
        if run.step % 25 == 0:
            mean = sum(recent) / len(recent)
            print(f"step {run.step}/{len(steps)}: loss {mean:.4f}, {time.monotonic() - begin:.0f} s", flush=True)
        if run.step % settings.checkpoint_steps == 0:
            run.save()


def main() -> None:
    """Run the command line."""
    parser = program("default_reranker.train", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("groups", type=Path, metavar="GROUPS", help="file of training.hard_negatives.mine")
    add_training_sets(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT_DIR", help="adapter folder to write")
    parser.add_argument("--learning-rate", type=float, default=SETTINGS.learning_rate, help="default: %(default)s")
    steps = "number of steps; default: %(default)s"
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, metavar="N", help=steps)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    settings = replace(SETTINGS, learning_rate=options.learning_rate)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    encoder = fresh_cross_encoder(options.backbone, settings.max_tokens, settings.seed)
    reduce_frozen_layers(encoder)
    run = Run.start(encoder, options.out.with_suffix(".checkpoint"), settings)
    train(run, batches(read_groups(options.groups), settings)[: options.steps], settings)
    save_cross_encoder(encoder, options.out)
    run.path.unlink(missing_ok=True)
    trained = load_cross_encoder(options.backbone, options.out, settings.max_tokens)
    for line in report(trained, read_held_out(options.backbone, options.data, settings)):
        print(f"held out: {line}", flush=True)


if __name__ == "__main__":
    main()
