"""Statistics of the activations that linear layers read, over the calibration inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64
from embedpack_export.quantization.activation_file import ActivationFile
from embedpack_export.quantization.covariances import CovarianceSum

MIN_SQUARED_LENGTH = np.float32(1e-12)
# Evenly spaced tokens in the sample that quantization candidates are compared on, and largest number of first tokens.
SAMPLE = 384


@dataclass(frozen=True)
class FirstTokens:
    """First tokens of texts, e.g. [CLS], and the others, in k channels."""

    mean: Float32  # mean of the first tokens, float32 [k]
    # Minimum and maximum of each channel over all other tokens, float32 [k].
    low: Float32
    high: Float32


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of one activation with k channels, over all tokens but padding.

    Mean and covariance weight a token by 1 / its squared length. In a decoder a few tokens, above all the first of a
    text, have values a hundred times those of the others (massive activations, Sun et al. 2024, arXiv 2402.17762), and
    would dominate both, although the next norm brings them back to the size of the others. (Weighting unusually short
    tokens down as well was tried on a decoder and is worse.)

    The first token of a text counts more in the sample of a causal model: all later tokens attend to it, many of them
    above all to it (attention sink, Xiao et al. 2023, arXiv 2309.17453), so its error is in each of their outputs.

    In the covariance of a bidirectional model, the means of texts weigh as much as their tokens: errors of tokens
    average out in the vector of a text, those of its mean stay.
    """

    # Mean, minimum and maximum of each channel, float32 [k].
    mean: Float32
    low: Float32
    high: Float32
    # Covariance of each block of channels (`covariance_blocks`), float64 [b, b].
    covariance: tuple[Float64, ...]
    sample: Float32  # evenly spaced tokens, and first tokens of texts of a causal model, float32 [n, k]
    tokens: int
    activations: ActivationFile | None = None  # file of all tokens; None: they were not kept
    first: FirstTokens | None = None  # first tokens of texts, in a bidirectional model


def inverse_squared_lengths(tokens: Float32) -> Float32:
    """1 / squared length of tokens [n, k]: float32 [n, 1].

    0 for a token of zeros, which has no direction.
    """
    squares = np.square(tokens).sum(axis=1, keepdims=True)
    return np.where(squares > MIN_SQUARED_LENGTH, 1 / np.maximum(squares, MIN_SQUARED_LENGTH), np.float32(0))


class StatisticsSum:
    """Sums for the statistics of one activation of k channels, batch by batch."""

    def __init__(self, channels: int, tokens: int) -> None:
        """Start at zero; `tokens` is the number of tokens to come, from which the sample is spaced."""
        self._stride = max(1, tokens // SAMPLE)
        self._count = 0
        self._weight = self._last_weight = 0.0
        # Sums are taken around the mean of the first tokens: far from zero, float32 products would lose the variance.
        self._origin: Float32 | None = None
        self._sum = np.zeros(channels)
        self._joint_weight = 0.0
        self._joint_sum = np.zeros(channels)
        self._texts = 0
        self._first_sum = np.zeros(channels)
        self._later_low = np.full(channels, np.inf, np.float32)
        self._later_high = np.full(channels, -np.inf, np.float32)
        self._products = CovarianceSum(channels)
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)
        self._sample: list[Float32] = []
        self._first: list[Float32] = []

    def add_first(self, tokens: Float32) -> None:
        """Add tokens [n, k] that `add` takes too, the first of their texts, to the sample: at most SAMPLE of them."""
        room = SAMPLE - sum(map(len, self._first))
        self._first.append(tokens[:room].astype(np.float32))

    def add_texts(self, values: Float32, lengths: npt.NDArray[np.int64]) -> None:
        """Add the texts [texts, padded length, k] whose tokens `add` took last, of a bidirectional model."""
        places = np.arange(values.shape[1])
        real = places < lengths[:, None]
        means: Float32 = np.where(real[..., None], values, 0).sum(axis=1) / lengths[:, None].astype(np.float32)
        later, first = values[real & (places > 0)], values[:, 0]
        self._later_low = np.minimum(self._later_low, later.min(0, initial=np.inf))
        self._later_high = np.maximum(self._later_high, later.max(0, initial=-np.inf))
        weights = inverse_squared_lengths(means)
        weights *= np.float32(self._last_weight / max(float(weights.sum(dtype=np.float64)), 1e-12))
        self._add_products(means, weights)
        self._texts += len(first)
        self._first_sum += first.sum(0, dtype=np.float64)

    def add(self, tokens: Float32) -> None:
        """Add tokens, float32 [n, k]."""
        if self._origin is None:
            self._origin = tokens.mean(0)
        weights = inverse_squared_lengths(tokens)
        self._last_weight = float(weights.sum(dtype=np.float64))
        self._weight += self._last_weight
        self._sum += ((tokens - self._origin) * weights).sum(0, dtype=np.float64)
        self._add_products(tokens, weights)
        self._sample.append(tokens[-self._count % self._stride :: self._stride].copy())
        self._count += len(tokens)
        self._low = np.minimum(self._low, tokens.min(0))
        self._high = np.maximum(self._high, tokens.max(0))

    def result(self) -> SiteStatistics:
        """The statistics of all tokens, of which there must be at least one; the sums are used up."""
        assert self._origin is not None
        joint_weight = self._joint_weight or 1.0
        moved = self._joint_sum / joint_weight
        covariance = self._products.result(joint_weight, moved, moved)
        mean = (self._sum / (self._weight or 1.0) + self._origin).astype(np.float32)
        sample = np.concatenate([*self._sample, *self._first])
        first = None
        if self._texts and np.isfinite(self._later_low).all():
            first = FirstTokens((self._first_sum / self._texts).astype(np.float32), self._later_low, self._later_high)
        return SiteStatistics(mean, self._low, self._high, covariance, sample, self._count, first=first)

    def _add_products(self, rows: Float32, weights: Float32) -> None:
        """Add rows [n, k] with `weights` [n, 1] to the covariance."""
        assert self._origin is not None
        roots = np.sqrt(weights)
        moved = (rows - self._origin) * roots
        self._joint_weight += float(weights.sum(dtype=np.float64))
        self._joint_sum += (moved * roots).sum(0, dtype=np.float64)
        self._products.add(moved, moved)
