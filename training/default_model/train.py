"""Train the adapter of one task of the default model: a LoRA on all-MiniLM-L6-v2.

TRAIN_DIR has one folder per set: pairs.jsonl.gz with lines {"query", "positive"}, or pairs.tsv.gz with a grade and two
texts. OUT_DIR becomes an adapter folder; tensors of other tasks in it stay.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR

from training.default_model.adapters import fresh_adapter, save, task_tensors
from training.default_model.encoder import TASKS, Encoder, load_backbone
from training.default_model.recipes import Recipe, read_recipe
from training.default_model.settings import SETTINGS, Settings
from training.program import add_backbone, add_training_sets, program

EXAMPLES = """examples:
  python -m training.default_model.train BACKBONE_DIR --task retrieval --data TRAIN_DIR -o OUT_DIR
  python -m training.default_model.train BACKBONE_DIR --task text-matching --teacher TEACHER_DIR \\
      --data TRAIN_DIR -o OUT_DIR"""


def schedule(step: int, settings: Settings) -> float:
    """Factor of the learning rate: linear warm-up, then cosine decay to zero."""
    warmup = max(1, round(settings.steps * settings.warmup))
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, settings.steps - warmup))) / 2


def train(encoder: Encoder, recipe: Recipe, settings: Settings) -> None:
    """Train the adapter in place, then interpolate between the backbone and the trained weights."""
    parameters = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    scheduler = LambdaLR(optimizer, lambda step: schedule(step, settings))
    begin = time.monotonic()
    for step, value in enumerate(islice(recipe.losses(encoder), settings.steps), start=1):
        optimizer.zero_grad()
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        if step % 20 == 0 or step == settings.steps:
            print(f"step {step}: loss {value.item():.4f}, {time.monotonic() - begin:.0f} s", flush=True)
    interpolate(encoder, settings.interpolation)


@torch.no_grad()
def interpolate(encoder: Encoder, share: float) -> None:
    """Scale the LoRA's update B A by `share`, by scaling B."""
    for name, parameter in encoder.model.named_parameters():
        if "lora_B" in name:
            parameter.mul_(share)


def main() -> None:
    """Run the command line."""
    parser = program("default_model.train", __doc__, EXAMPLES)
    add_backbone(parser)
    parser.add_argument("--task", choices=TASKS, required=True, help="task of the adapter")
    parser.add_argument(
        "--teacher", type=Path, metavar="TEACHER_DIR", help="folder of multilingual-e5-small, for --task text-matching"
    )
    add_training_sets(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT_DIR", help="adapter folder to write")
    parser.add_argument("--steps", type=int, metavar="N", help="number of steps; default: that of settings.py")
    options = parser.parse_args()
    if (options.teacher is None) == (options.task == "text-matching"):
        parser.error("--task text-matching needs a --teacher, and the other tasks take none")
    settings = SETTINGS[options.task]
    if options.steps is not None:
        settings = replace(settings, steps=options.steps)

    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    encoder = load_backbone(options.backbone, settings.max_tokens)
    teacher = None if options.teacher is None else load_backbone(options.teacher, settings.max_tokens)
    recipe = read_recipe(options.task, options.data, settings, teacher)
    for line in recipe.report(encoder):
        print(f"held out, backbone with prompts: {line}", flush=True)
    encoder = fresh_adapter(encoder, options.task, settings.seed)
    train(encoder, recipe, settings)
    save(task_tensors(encoder, options.task), options.out)
    for line in recipe.report(encoder):
        print(f"held out, adapter: {line}", flush=True)


if __name__ == "__main__":
    main()
