"""Inputs of a set through a variant, as a user would do it: by `Embedder`, under the prompt of their kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedpack import Embedder, Embeddings, MultiEmbeddings
from embedpack.engine.loading import open_processor
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.pack.folder import Pack
from embedpack.progress import Progress
from embedpack.vectors.multi_embeddings import offsets_of
from embedpack.vectors.token_pooling import pool_rows
from embedpack_export.reference.protocol import Input

# Inputs prepared at a time where only their tokens are asked for; few where there are images, whose pixels take memory.
TEXTS, IMAGES = 1024, 8
# Upper bounds of the buckets of lengths, in tokens.
LENGTHS = (16, 64, 256, 1024)


def encode(model: Embedder, task: str, inputs: Sequence[Input], wanted: str) -> Embeddings:
    """Single vectors, float32."""
    name = model.pack.manifest.tasks[task].prompt_name(wanted)
    return model.encode(list(inputs), task=task, prompt_name=name)


def encode_multi(model: Embedder, task: str, inputs: Sequence[Input], wanted: str) -> MultiEmbeddings:
    """Multi-vectors, float32."""
    name = model.pack.manifest.tasks[task].prompt_name(wanted)
    return model.encode_multi(list(inputs), task=task, prompt_name=name)


@dataclass(frozen=True)
class Seen:
    """What is known of an input without a graph.

    Attributes:
        tokens: how many it has, its prompt and special tokens included, once it is cut.
        image: it is one.
        alone: tokens whose vectors pooling leaves as they are, bool [tokens].
    """

    tokens: int
    image: bool
    alone: npt.NDArray[np.bool_]

    @property
    def length(self) -> str:
        """Name of its bucket."""
        if self.image:
            return "images"
        below = [0, *takewhile(lambda bound: bound < self.tokens, LENGTHS)][-1]
        above = next((bound for bound in LENGTHS if bound >= self.tokens), None)
        return f"over {below} tokens" if above is None else f"{below + 1} to {above} tokens"


def look_at(pack: Pack, task: str, inputs: Sequence[Input], wanted: str) -> list[Seen]:
    """Tokens of each input, in their order, by the pack's tokenizer and image rules."""
    prompt = pack.manifest.tasks[task].prompt(wanted)
    seen = []
    with Progress("counting tokens", len(inputs)) as progress:
        for item in _model_inputs(open_processor(pack), inputs, prompt):
            seen.append(Seen(len(item.ids), item.image is not None, item.alone))
            progress.advance(1)
    return seen


def _model_inputs(processor: Processor, inputs: Sequence[Input], prompt: str) -> Iterator[ModelInput]:
    window = IMAGES if any(isinstance(item, Path) for item in inputs) else TEXTS
    for start in range(0, len(inputs), window):
        part = inputs[start : start + window]
        yield from processor.process(part, prompt, numbers=range(start, start + len(part)), max_pixels=None)


def pooled(vectors: MultiEmbeddings, seen: Sequence[Seen], factor: int) -> MultiEmbeddings:
    """Fewer vectors for each input, as `Embedder.encode_multi(pool_factor=...)` gives them; float32."""
    bounds = pairwise(vectors.offsets.tolist())
    rows = [
        pool_rows(vectors.codes[start:stop], item.alone, factor)
        for (start, stop), item in zip(bounds, seen, strict=True)
    ]
    return MultiEmbeddings(
        np.concatenate(rows),
        offsets_of([len(item) for item in rows]),
        "float32",
        vectors.dimensions,
        vectors.space,
        vectors.max_pixels,
    )
