#!/usr/bin/env python3
"""Train the `retrieval` adapter of the default model: a LoRA on all-MiniLM-L6-v2.

python train.py BACKBONE_DIR --data TRAIN_DIR -o OUT_DIR

TRAIN_DIR holds one folder per set with pairs.jsonl.gz, lines {"query", "positive"}. OUT_DIR becomes an adapter folder
in the layout of jina-embeddings-v4: keys name the task, prompts stand in config_sentence_transformers.json.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from retriever import (
    BACKBONE,
    MATRYOSHKA_DIMS,
    NO_PROMPTS,
    PROMPTS,
    TASK,
    THREADS,
    Encoder,
    encode,
    load_backbone,
    ndcg_at_10,
    read_records,
    scores,
)
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim.lr_scheduler import LambdaLR

TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


@dataclass(frozen=True)
class Source:
    """A training set and its share of the batches."""

    folder: str
    share: float


SOURCES = (
    Source("debian-desc-en", 0.5),
    Source("python-docstring-code", 0.3),
    Source("nl2bash-train", 0.2),
)


@dataclass(frozen=True)
class Settings:
    """The recipe."""

    steps: int = 200
    seed: int = 20261121
    batch: int = 48
    max_tokens: int = 96  # most passages are shorter; the search itself may read longer texts
    rank: int = 8
    alpha: int = 16
    learning_rate: float = 4e-4
    warmup: float = 0.1  # share of the steps
    temperature: float = 0.05
    closeness: float = 20.0  # weight of staying near the backbone's own similarities
    held_out: int = 400  # pairs of each set that are never trained on


class Pair(NamedTuple):
    """A search and the passage it should find."""

    query: str
    passage: str


def read_pairs(folder: Path) -> list[Pair]:
    """Pairs of one set, every text once: a repeated one would be its own wrong answer in a batch."""
    queries: set[str] = set()
    passages: set[str] = set()
    pairs = []
    for record in read_records(folder / "pairs.jsonl.gz"):
        pair = Pair(record["query"], record["positive"])
        if pair.query not in queries and pair.passage not in passages:
            pairs.append(pair)
        queries.add(pair.query)
        passages.add(pair.passage)
    return pairs


def endless(pairs: Sequence[Pair], batch: int, order: random.Random) -> Iterator[list[Pair]]:
    """Batches of one set, reshuffled at each pass."""
    while True:
        shuffled = order.sample(pairs, len(pairs))
        for start in range(0, len(shuffled) - batch + 1, batch):
            yield shuffled[start : start + batch]


def batches(sets: Sequence[Sequence[Pair]], settings: Settings) -> Iterator[list[Pair]]:
    """One batch a step, each from a single set: passages of one kind are harder to tell apart."""
    order = random.Random(settings.seed)
    streams = [endless(pairs, settings.batch, order) for pairs in sets]
    shares = [source.share for source in SOURCES]
    for _ in range(settings.steps):
        yield next(order.choices(streams, weights=shares)[0])


def contrastive(queries: Tensor, passages: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways, averaged over the dimensions a user may cut to: each must work alone."""
    gold = torch.arange(len(queries))
    losses = []
    for dimensions in MATRYOSHKA_DIMS:
        logits = scores(queries, passages, dimensions) / temperature
        losses.append(cross_entropy(logits, gold) + cross_entropy(logits.T, gold))
    return torch.stack(losses).mean() / 2


def drift(vectors: Tensor, reference: Tensor) -> Tensor:
    """How far all similarities within the batch moved from the backbone's: what it knows beyond our sets stays."""
    width = vectors.shape[1]
    return mse_loss(scores(vectors, vectors, width), scores(reference, reference, width))


def loss(encoder: Encoder, batch: Sequence[Pair], settings: Settings) -> Tensor:
    """Find the right passage, and stay near the backbone, which sees the texts without prompts."""
    queries = [pair.query for pair in batch]
    passages = [pair.passage for pair in batch]
    prompted = [PROMPTS.query + text for text in queries] + [PROMPTS.passage + text for text in passages]
    vectors = encoder(prompted)
    with encoder.without_adapter():
        reference = encode(encoder, queries + passages, NO_PROMPTS.query)
    found = contrastive(vectors[: len(batch)], vectors[len(batch) :], settings.temperature)
    return found + settings.closeness * drift(vectors, reference)


def schedule(step: int, settings: Settings) -> float:
    """Share of the learning rate: a linear rise, then half a cosine down to zero."""
    rise = max(1, round(settings.steps * settings.warmup))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, settings.steps - rise))) / 2


def add_adapter(encoder: Encoder, settings: Settings) -> Encoder:
    """A fresh LoRA on the six linear layers of every block."""
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=TARGETS,
        task_type="FEATURE_EXTRACTION",
    )
    return replace(encoder, model=get_peft_model(encoder.model, config, adapter_name=TASK).eval())


def train(encoder: Encoder, sets: Sequence[Sequence[Pair]], settings: Settings) -> None:
    """Fit the adapter in place."""
    parameters = [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    scheduler = LambdaLR(optimizer, lambda step: schedule(step, settings))
    begin = time.monotonic()
    for step, batch in enumerate(batches(sets, settings), start=1):
        value = loss(encoder, batch, settings)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        if step % 20 == 0 or step == settings.steps:
            print(f"step {step}: loss {value.item():.4f}, {time.monotonic() - begin:.0f} s", flush=True)


def held_out_ndcg(encoder: Encoder, pairs: Sequence[Pair], dimensions: int) -> float:
    """nDCG@10 among pairs that training never sees: what to choose settings by."""
    queries = encode(encoder, [pair.query for pair in pairs], PROMPTS.query)
    passages = encode(encoder, [pair.passage for pair in pairs], PROMPTS.passage)
    return ndcg_at_10(scores(queries, passages, dimensions), [{index} for index in range(len(pairs))]).mean().item()


def print_held_out(encoder: Encoder, held_out: Sequence[Sequence[Pair]], label: str) -> None:
    """One line for each set."""
    for source, pairs in zip(SOURCES, held_out, strict=True):
        figures = ", ".join(f"{held_out_ndcg(encoder, pairs, size):.4f} at {size}" for size in (384, 64))
        print(f"held out, {label}: {source.folder}: nDCG@10 {figures}", flush=True)


def write_json(path: Path, value: object) -> None:
    """Indented and with a final newline, as people edit it."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")


def save(encoder: Encoder, out: Path) -> None:
    """Write the adapter folder; every key says which task it belongs to, so that more tasks fit in the same file."""
    out.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(encoder.model, adapter_name=TASK)
    named = {name.removesuffix(".weight") + f".{TASK}.weight": tensor.contiguous() for name, tensor in state.items()}
    save_file(named, out / "adapter_model.safetensors", metadata={"format": "pt"})

    config = encoder.model.peft_config[TASK]
    config.base_model_name_or_path = BACKBONE  # peft noted the folder on this machine
    config.inference_mode = True
    config.save_pretrained(str(out))
    written = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])  # peft keeps a set, whose order changes every run
    write_json(out / "adapter_config.json", written)
    prompts = {"query": PROMPTS.query, "passage": PROMPTS.passage}
    settings = {"prompts": prompts, "default_prompt_name": "query", "matryoshka_dims": list(MATRYOSHKA_DIMS)}
    write_json(out / "config_sentence_transformers.json", settings)


def main() -> None:
    """Command line."""
    standard = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=Path, metavar="BACKBONE_DIR", help="all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN_DIR", help="folder of the training sets")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT_DIR")
    parser.add_argument("--steps", type=int, default=standard.steps, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=standard.seed, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=standard.learning_rate, help="default: %(default)s")
    parser.add_argument(
        "--threads", type=int, default=THREADS, help="default: %(default)s; figures depend on it a little"
    )
    parser.add_argument("--closeness", type=float, default=standard.closeness, help="default: %(default)s")
    options = parser.parse_args()
    settings = Settings(
        steps=options.steps, seed=options.seed, learning_rate=options.learning_rate, closeness=options.closeness
    )

    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    shuffled = [
        random.Random(settings.seed).sample(pairs, len(pairs))
        for pairs in (read_pairs(options.data / source.folder) for source in SOURCES)
    ]
    held_out = [pairs[: settings.held_out] for pairs in shuffled]
    encoder = load_backbone(options.backbone, settings.max_tokens)
    print_held_out(encoder, held_out, "backbone with prompts")
    encoder = add_adapter(encoder, settings)
    train(encoder, [pairs[settings.held_out :] for pairs in shuffled], settings)
    print_held_out(encoder, held_out, "adapter")
    save(encoder, options.out)


if __name__ == "__main__":
    main()
