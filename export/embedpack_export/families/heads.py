"""Heads of a model: what follows the last hidden states, from pooling to finished vectors."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack.pack.manifest import Pooling
from embedpack.vectors.metric import Similarity
from embedpack_export.sources.head_layers import Layer, TokenLogits


@dataclass(frozen=True)
class SingleHead:
    """Head of single vectors: pooled hidden states, through layers."""

    pooling: Pooling
    layers: tuple[Layer, ...] = ()
    normalize: bool = True  # the vector is brought to length 1; false: it keeps its length
    similarity: Similarity = "cosine"  # similarity that the model is trained for; "dot" without `normalize` alone


@dataclass(frozen=True)
class TokenHead:
    """Head of multi-vectors: the hidden state of each token, through layers, to a vector of length 1."""

    layers: tuple[Layer, ...]
    truncate_dims: tuple[int, ...] = ()  # truncations that the model was trained for, besides all dimensions

    @property
    def allowed_dims(self) -> tuple[int, ...]:
        """Truncations, ascending; the last are all dimensions."""
        return tuple(sorted({*self.truncate_dims, self.dimensions}))

    @property
    def dimensions(self) -> int:
        """Dimensions of a token's vector."""
        return self.layers[-1].outputs


@dataclass(frozen=True)
class ScoreHead:
    """Head of the scores of pairs: the pooled hidden states of a pair, through layers, the last with one output."""

    pooling: Pooling
    layers: tuple[Layer | TokenLogits, ...]

    @property
    def of_tokens(self) -> bool:
        """True if the score is the difference of two logits of a language model."""
        return any(isinstance(layer, TokenLogits) for layer in self.layers)


@dataclass(frozen=True)
class MarkHead:
    """Head of the scores of lists: the hidden states at marks, through layers, each with its length."""

    layers: tuple[Layer, ...]

    @property
    def dimensions(self) -> int:
        """Dimensions of the vector at a mark."""
        return self.layers[-1].outputs


@dataclass(frozen=True)
class Heads:
    """Heads of a family; None: it has none of its own."""

    single: SingleHead | None = None  # None: that of the files of sentence-transformers, or of the caller
    tokens: TokenHead | None = None
    score: ScoreHead | MarkHead | None = None  # None: the model gives vectors


NO_HEADS = Heads()
