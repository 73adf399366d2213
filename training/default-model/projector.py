#!/usr/bin/env python3
"""Train the multi-vector projector of the default model, and a LoRA on it for each task.

python projector.py BACKBONE_DIR --data TRAIN_DIR -o ADAPTER_DIR

ADAPTER_DIR holds the adapters of all tasks, as train.py wrote them; the projector is added to the same file. The model
does not change: its token states are computed once.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from adapters import ALPHA, RANK, load_adapter, projector_tensors, save
from encoder import TASKS, load_backbone
from late_interaction import Projector, binary, maxsim, maxsim_in_parts, pooled, principal
from recipes import read_recipe
from scoring import ndcg_at_10, scores
from settings import PROJECTING, SETTINGS, Projecting
from texts import Pair, endless
from token_states import TokenStates
from torch import Tensor
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Stored:
    """States of one set's pairs; query and passage of a pair have the same place."""

    name: str
    queries: TokenStates
    passages: TokenStates

    def __len__(self) -> int:
        """Pairs."""
        return len(self.queries.rows)


@dataclass(frozen=True)
class TaskStates:
    """What one task learns from, and what it is judged by."""

    train: list[Stored]
    held_out: list[Stored]


def read_states(backbone: Path, folder: Path, adapters: Path, task: str, settings: Projecting) -> TaskStates:
    """Token states of one task under its adapter."""
    bare = load_backbone(backbone, SETTINGS[task].max_tokens)
    encoder = load_adapter(bare, adapters, task)
    sets = list(read_recipe(task, folder, SETTINGS[task]).prompted(settings.pairs))

    def stored(name: str, pairs: Sequence[Pair]) -> Stored:
        queries = TokenStates.of(encoder, [pair.query for pair in pairs])
        return Stored(name, queries, TokenStates.of(encoder, [pair.passage for pair in pairs]))

    return TaskStates(
        [stored(one.name, one.train) for one in sets],
        [stored(one.name, one.held_out) for one in sets if one.held_out],
    )


def start(states: Sequence[TaskStates], settings: Projecting) -> Projector:
    """The main directions of all tasks' token states."""
    torch.manual_seed(settings.seed)
    rows = [row for task in states for one in task.train for row in one.passages.rows[: settings.principal_texts]]
    weight, bias = principal(torch.cat(rows).float())
    return Projector(weight, bias, RANK, ALPHA)


def loss(projector: Projector, task: str, stored: Stored, places: Sequence[int], settings: Projecting) -> Tensor:
    """Find the partner by MaxSim: with floats, with documents of one bit a dimension, and with pooled ones of a bit."""
    queries = projector(stored.queries.batch(places), task)
    documents = projector(stored.passages.batch(places), task)
    with torch.no_grad():
        center = documents.values[documents.mask == 1].mean(0)
    gold = torch.arange(len(places))
    lengths = queries.mask.sum(1, keepdim=True)
    total = torch.zeros(())
    for weight, form in (
        (1.0, documents),
        (settings.binary, binary(documents, center)),
        (settings.pooled, binary(pooled(documents), center)),
    ):
        logits = maxsim(queries, form) / lengths / settings.temperature
        total = total + weight * (cross_entropy(logits, gold) + cross_entropy(logits.T, gold)) / 2
    return total


def train(projector: Projector, states: Sequence[TaskStates], settings: Projecting) -> None:
    """Fit the projector and its LoRAs in place; tasks take turns, sets come as often as they have pairs."""
    order = random.Random(settings.seed)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    streams = [[endless(range(len(one)), settings.batch, order) for one in task.train] for task in states]
    begin = time.monotonic()
    for step in range(settings.steps):
        turn = step % len(TASKS)
        sets = states[turn].train
        place = order.choices(range(len(sets)), weights=[len(one) for one in sets])[0]
        value = loss(projector, TASKS[turn], sets[place], next(streams[turn][place]), settings)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        scheduler.step()
        if (step + 1) % 150 == 0 or step + 1 == settings.steps:
            print(f"step {step + 1}: loss {value.item():.4f}, {time.monotonic() - begin:.0f} s", flush=True)


@torch.no_grad()
def report(projector: Projector, states: Sequence[TaskStates]) -> None:
    """NDCG@10 on held-out pairs, one line a set: single vectors, multi-vectors, and those compressed."""
    for task, kept in zip(TASKS, states, strict=True):
        for one in kept.held_out:
            everyone = range(len(one))
            queries = projector(one.queries.batch(everyone), task)
            documents = projector(one.passages.batch(everyone), task)
            center = documents.values[documents.mask == 1].mean(0)
            found = {
                "single": scores(one.queries.means(), one.passages.means(), 384),
                "multi": maxsim_in_parts(queries, documents),
                "binary": maxsim_in_parts(queries, binary(documents, center)),
                "pooled binary": maxsim_in_parts(queries, binary(pooled(documents), center)),
            }
            gold = [{place} for place in everyone]
            figures = (f"{name} {ndcg_at_10(score, gold).mean().item():.4f}" for name, score in found.items())
            print(f"held out, {task}: {one.name}: nDCG@10 {', '.join(figures)}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=Path, metavar="BACKBONE_DIR", help="all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN_DIR", help="folder of the training sets")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="ADAPTER_DIR")
    options = parser.parse_args()

    torch.set_num_threads(PROJECTING.threads)
    torch.use_deterministic_algorithms(True)
    states = [read_states(options.backbone, options.data, options.out, task, PROJECTING) for task in TASKS]
    projector = start(states, PROJECTING)
    report(projector, states)
    train(projector, states, PROJECTING)
    report(projector, states)
    save(projector_tensors(projector), options.out)


if __name__ == "__main__":
    main()
