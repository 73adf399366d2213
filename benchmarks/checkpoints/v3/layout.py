"""Sizes, names and shapes of all tensors; the adapters of all tasks are stacked along the first axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.checkpoints.random_tensors import RandomTensor

TASKS = ("retrieval.query", "retrieval.passage", "separation", "classification", "text-matching")
PARTS = ".parametrizations.weight"


@dataclass(frozen=True)
class V3Shape:
    """Sizes of the encoder and the rank of its adapters; all others are the same in every size."""

    layers: int = 24
    hidden: int = 1024
    heads: int = 16
    inner: int = 4096
    vocabulary: int = 250_002
    rank: int = 4


# Standard deviations of random weights; an adapter changes a matrix by a fiftieth.
WEIGHT, NORM, UPDATE = 0.02, 0.1, 0.02


def random_tensors(shape: V3Shape, scale: float) -> Iterator[RandomTensor]:
    """Tensors of model.safetensors; `scale` is the factor of the adapters."""
    yield from _table("roberta.embeddings.word_embeddings", shape, shape.vocabulary, scale)
    yield from _table("roberta.embeddings.token_type_embeddings", shape, 1, scale)
    yield from _norm("roberta.emb_ln", shape)
    for index in range(shape.layers):
        layer = f"roberta.encoder.layers.{index}"
        linears = {
            "mixer.Wqkv": (3 * shape.hidden, shape.hidden),
            "mixer.out_proj": (shape.hidden, shape.hidden),
            "mlp.fc1": (shape.inner, shape.hidden),
            "mlp.fc2": (shape.hidden, shape.inner),
        }
        for name, (outputs, inputs) in linears.items():
            yield from _linear(f"{layer}.{name}", outputs, inputs, shape.rank, scale)
        yield from _norm(f"{layer}.norm1", shape)
        yield from _norm(f"{layer}.norm2", shape)
    yield from _linear("roberta.pooler.dense", shape.hidden, shape.hidden, shape.rank, scale)


def _linear(module: str, outputs: int, inputs: int, rank: int, scale: float) -> Iterator[RandomTensor]:
    yield RandomTensor(f"{module}{PARTS}.original", (outputs, inputs), WEIGHT)
    yield RandomTensor(f"{module}.bias", (outputs,), WEIGHT)
    yield from _factors(module, (rank, inputs), (outputs, rank), scale)


def _table(module: str, shape: V3Shape, rows: int, scale: float) -> Iterator[RandomTensor]:
    """A table of embeddings, whose factors have the other order."""
    yield RandomTensor(f"{module}{PARTS}.original", (rows, shape.hidden), WEIGHT)
    yield from _factors(module, (rows, shape.rank), (shape.rank, shape.hidden), scale)


def _factors(module: str, a: tuple[int, int], b: tuple[int, int], scale: float) -> Iterator[RandomTensor]:
    """Both factors of all tasks; their scaled product has the standard deviation UPDATE x WEIGHT."""
    rank = min(*a, *b)
    deviation = (UPDATE * WEIGHT / scale) ** 0.5 / rank**0.25
    yield RandomTensor(f"{module}{PARTS}.0.lora_A", (len(TASKS), *a), deviation)
    yield RandomTensor(f"{module}{PARTS}.0.lora_B", (len(TASKS), *b), deviation)


def _norm(name: str, shape: V3Shape) -> Iterator[RandomTensor]:
    yield RandomTensor(f"{name}.weight", (shape.hidden,), NORM, mean=1.0)
    yield RandomTensor(f"{name}.bias", (shape.hidden,), NORM)
