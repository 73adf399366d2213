#!/usr/bin/env python3
"""Train the adapter of one task of the default model: a LoRA on all-MiniLM-L6-v2.

python train.py BACKBONE_DIR --task retrieval --data TRAIN_DIR -o OUT_DIR
python train.py BACKBONE_DIR --task text-matching --teacher TEACHER_DIR --data TRAIN_DIR -o OUT_DIR

TRAIN_DIR holds one folder per set: pairs.jsonl.gz with lines {"query", "positive"}, or pairs.tsv.gz with a grade and
two texts. OUT_DIR becomes an adapter folder, or gets one more task: what it holds of other tasks stays.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from adapters import fresh_adapter, save, task_tensors
from encoder import TASKS, Encoder, load_backbone
from recipes import Recipe, read_recipe
from settings import SETTINGS, Settings
from torch.optim.lr_scheduler import LambdaLR


def schedule(step: int, settings: Settings) -> float:
    """Share of the learning rate: a linear rise, then half a cosine down to zero."""
    rise = max(1, round(settings.steps * settings.warmup))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, settings.steps - rise))) / 2


def train(encoder: Encoder, recipe: Recipe, settings: Settings) -> None:
    """Fit the adapter in place."""
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
    shorten(encoder, settings.kept)


@torch.no_grad()
def shorten(encoder: Encoder, share: float) -> None:
    """Go only this share of the way from the backbone: a LoRA's change is as large as its B."""
    for name, parameter in encoder.model.named_parameters():
        if "lora_B" in name:
            parameter.mul_(share)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=Path, metavar="BACKBONE_DIR", help="all-MiniLM-L6-v2")
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--teacher", type=Path, metavar="TEACHER_DIR", help="multilingual-e5-small, which text-matching learns from"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN_DIR", help="folder of the training sets")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT_DIR")
    parser.add_argument("--steps", type=int, help="default: as in settings.py")
    options = parser.parse_args()
    if (options.teacher is None) == (options.task == "text-matching"):
        parser.error("--task text-matching, and no other, learns from a --teacher")
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
