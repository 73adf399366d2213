"""Vectors of evaluation inputs, as `Embedder` returns them, and the token counts of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np
import numpy.typing as npt

from embedpack import Embedder, Embeddings, MultiEmbeddings
from embedpack.engine.loading import open_processor
from embedpack.inputs.batching import windows
from embedpack.pack.folder import Pack
from embedpack.progress import Progress
from embedpack.vectors.multi_embeddings import offsets_of
from embedpack.vectors.token_pooling import pool_rows
from embedpack_export.evaluation.sets.data import AnySet, RetrievalSet
from embedpack_export.reference.protocol import Input

# Inputs processed at a time to count their tokens.
COUNTED_INPUTS = 1024
# Upper bounds of the length groups, in tokens.
LENGTHS = (16, 64, 256, 1024)


def encode(model: Embedder, task: str, inputs: Sequence[Input], prompt_name: str) -> Embeddings:
    """Encode inputs as float32 single vectors, with the prompt of their side, `prompt_name`: "query" or "document"."""
    name = model.pack.manifest.tasks[task].prompt_name(prompt_name)
    return model.encode(list(inputs), task=task, prompt_name=name)


def encode_multi(model: Embedder, task: str, inputs: Sequence[Input], prompt_name: str) -> MultiEmbeddings:
    """Encode inputs as float32 multi-vectors; arguments as for `encode`."""
    name = model.pack.manifest.tasks[task].prompt_name(prompt_name)
    return model.encode_multi(list(inputs), task=task, prompt_name=name)


@dataclass(frozen=True, eq=False)
class VectorPair:
    """Single vectors of queries and documents, or of first and second texts."""

    left: Embeddings
    right: Embeddings

    def truncate(self, dimensions: int) -> VectorPair:
        """Return both truncated."""
        return VectorPair(self.left.truncate(dimensions), self.right.truncate(dimensions))


@dataclass(frozen=True, eq=False)
class MultiVectorPair:
    """Multi-vectors of queries and documents."""

    left: MultiEmbeddings
    right: MultiEmbeddings

    def truncate(self, dimensions: int) -> MultiVectorPair:
        """Return both truncated."""
        return MultiVectorPair(self.left.truncate(dimensions), self.right.truncate(dimensions))


def encode_set(model: Embedder, task: str, evaluation_set: AnySet) -> VectorPair:
    """Encode both sides of a set as float32 single vectors."""
    return VectorPair(*(encode(model, task, side.inputs, side.prompt_name) for side in evaluation_set.sides))


def encode_set_multi(model: Embedder, task: str, evaluation_set: RetrievalSet) -> MultiVectorPair:
    """Encode both sides of a set as float32 multi-vectors."""
    return MultiVectorPair(*(encode_multi(model, task, side.inputs, side.prompt_name) for side in evaluation_set.sides))


@dataclass(frozen=True)
class InputInfo:
    """Token count and kind of an input, for groups of results."""

    tokens: int  # number of tokens after truncation, prompt and special tokens included
    image: bool
    unpooled: npt.NDArray[np.bool_]  # vectors that token pooling keeps as they are, bool [vectors]

    @property
    def length(self) -> str:
        """Name of the length group, e.g. "17 to 64 tokens"."""
        if self.image:
            return "images"
        below = [0, *takewhile(lambda bound: bound < self.tokens, LENGTHS)][-1]
        above = next((bound for bound in LENGTHS if bound >= self.tokens), None)
        return f"over {below} tokens" if above is None else f"{below + 1} to {above} tokens"


def inspect_inputs(pack: Pack, task: str, inputs: Sequence[Input], prompt_name: str) -> list[InputInfo]:
    """Process inputs without running a graph; arguments as for `encode`."""
    processor, prompt = open_processor(pack), pack.manifest.tasks[task].prompt(prompt_name)
    infos = []
    with Progress("counting tokens", len(inputs)) as progress:
        for window in windows(processor.items(inputs), COUNTED_INPUTS):
            for model_input in processor.process(window, prompt):
                unpooled = model_input.of_multi_vector(model_input.unpooled)
                infos.append(InputInfo(model_input.length, model_input.image is not None, unpooled))
                progress.advance(1)
    return infos


def pooled(vectors: MultiEmbeddings, infos: Sequence[InputInfo], factor: int) -> MultiEmbeddings:
    """Pool float32 multi-vectors as `Embedder.encode_multi(pool_factor=...)` does."""
    bounds = pairwise(vectors.offsets.tolist())
    rows = [
        pool_rows(vectors.codes[start:stop], info.unpooled, factor)
        for (start, stop), info in zip(bounds, infos, strict=True)
    ]
    offsets = offsets_of([len(pooled_rows) for pooled_rows in rows])
    return MultiEmbeddings(
        np.concatenate(rows), offsets, "float32", vectors.dimensions, vectors.space, vectors.max_pixels
    )
