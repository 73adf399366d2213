"""SmoothQuant with the smoothing strength chosen for each activation by the rounding error that is expected of it.

Smoothing divides the channels of an activation by d and multiplies the weights that read it by d, with

    d_k = max_r |x_rk|^a / max_n |w_nk|^(1 - a)          (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438, eq. 4)

Both are rounded to multiples of a scale s: the largest value of a row (token or output channel) over 127. A rounding
error is uniform within half a scale, so its variance is s^2 / 12, and the expected squared error of the outputs of a
token r is, up to the factor 1 / 12,

    from the activations  s_r^2 * sum_k (d_k^2 * sum_n w_nk^2)
    from the weights      sum_n s_n^2 * sum_k (x_rk^2 / d_k^2)

The candidate with the smallest error is taken; if the channels can be reordered, each is a partition into blocks with
scales of their own (`best_partition`). The error of a token is relative to the size of its outputs: the next norm
brings all tokens to one size, so the few with massive activations (Sun et al. 2024, arXiv 2402.17762) must not
dominate.

A static scale, shared by all rows, saves the passes that compute each row's largest value, but has to cover the largest
value of all rows. The outputs of a norm hardly differ in this once smoothed, so a static scale is an option there.

The first token of a bidirectional model, e.g. [CLS], hardly differs between texts in the first layers, and other tokens
attend to it, so its error is in each vector, and tokens do not average it out. With a static scale, the shift of each
channel is moved by less than half a step to where the mean of first tokens has no rounding error. A channel with a
massive value there would make the scale of all channels coarse; it can be repeated instead, so that the first token has
its value in several channels, and the scale only has to cover the others (as in Outlier Channel Splitting, Zhao et al.
2019, arXiv 1901.09504, but for one token).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix, row_chunks
from embedpack_export.quantization.channel_blocks import MAX_BLOCKS, ErrorTerms, best_partition, static_scale_error
from embedpack_export.quantization.channel_layout import ChannelGroups, ChannelLayout
from embedpack_export.quantization.statistics import FirstTokens, SiteStatistics

# Candidates for the smoothing strength a; at 0 the activations keep their sizes, at 1 all channels get the same size.
STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Part of the weights' error that remains after GPTQ.
GPTQ_ERROR = 0.3
# Largest error with a static scale, relative to the error with a scale for each row; the second where the mean of first
# tokens has no error, in bidirectional models. A larger one makes more scales static: less time, and more error.
MAX_STATIC_ERROR_RATIO = 1.3
MAX_ALIGNED_ERROR_RATIO = 1.9
# A channel is massive at first tokens if they are this much farther from the middle of the others than these reach.
MASSIVE = 2.0
# Largest number of massive channels.
MAX_MASSIVE = 2
# Largest error with repeated channels, relative to that of a static scale without them: they take time.
MAX_REPEATED_ERROR_RATIO = 0.8
# Fewer tokens do not show the largest values to expect.
MIN_TOKENS = 2000
# Largest value of a static scale over that of the calibration; larger values are clipped.
HEADROOM = np.float32(1.1)
# Squared outputs below this count as zero: they are no measure for an error.
NEGLIGIBLE = 1e-12
# Number of weight rows that errors are computed with: rows are alike, and all of them would take minutes.
ROWS = 1024


@dataclass(frozen=True)
class RepeatedChannel:
    """A channel that follows the others in pairs of opposite signs, which differ from 0 at first tokens alone."""

    channel: int
    pairs: int
    steps: int  # multiple of the scale at first tokens


@dataclass(frozen=True)
class SmoothingChoice:
    """Transformation of an activation's channels before they are quantized, (x - shift) / divisors, in blocks."""

    shift: Float32  # shift of each channel, float32 [k]
    layout: ChannelLayout  # divisors and blocks
    max_abs: np.float32 | None  # largest value that the static scale covers; None: each row has a scale of its own
    error: float  # expected squared error, up to a factor that is the same for all candidates
    repeated: tuple[RepeatedChannel, ...] = ()  # with a static scale: channels whose first tokens it does not cover


@dataclass(frozen=True)
class _WeightSample:
    """Rows of the weights that read an activation, [n, k], and squared sizes of the outputs of its tokens, [t, 1]."""

    rows: Float32
    outputs: Float32

    @classmethod
    def of(cls, weights: Sequence[Matrix], tokens: Float32) -> _WeightSample:
        """Evenly spaced rows of all matrices, and their outputs for `tokens` [t, k]."""
        stride = max(1, sum(matrix.shape[0] for matrix in weights) // ROWS)
        rows = np.concatenate([matrix.rows(_every(stride, matrix.shape[0])) for matrix in weights])
        squares = np.square(tokens @ rows.T).sum(axis=1, keepdims=True)
        return cls(rows, np.where(squares > NEGLIGIBLE, squares, np.float32(np.inf)))


def choose_smoothing(
    statistics: SiteStatistics, weights: Sequence[Matrix], *, shifts: bool, groups: ChannelGroups | None = None
) -> SmoothingChoice:
    """Choose shift, divisors (of geometric mean 1), blocks and kind of scale for an activation.

    `weights` are those of all layers that read the activation, [out, k] each. If `shifts`, channels can be shifted, as
    after a norm: then a static scale is an option, and there is one block. Else each row is centered at run time.
    `groups` have common divisors; None: each channel has its own, and channels that are not shifted can be reordered
    into blocks.
    """
    sample = _WeightSample.of(weights, statistics.sample)
    max_blocks = MAX_BLOCKS if groups is None and not shifts else 1
    choices = []
    for shift, divisors in _candidates(statistics, sample.rows, shifts=shifts, groups=groups):
        terms = _error_terms(statistics, sample, shift, divisors, centered=not shifts)
        blocks, error = best_partition(terms, max_blocks)
        choices.append(SmoothingChoice(shift, ChannelLayout(divisors, blocks), None, error))
    best = min(choices, key=lambda choice: choice.error)
    if not shifts or statistics.tokens < MIN_TOKENS:
        return best
    static = _static_choice(statistics, weights, sample)
    largest = MAX_STATIC_ERROR_RATIO if statistics.first is None else MAX_ALIGNED_ERROR_RATIO
    return best if static is None or static.error > largest * best.error else static


def _static_choice(
    statistics: SiteStatistics, weights: Sequence[Matrix], sample: _WeightSample
) -> SmoothingChoice | None:
    """The best choice with a static scale; None: all values are 0. `sample` is that of all tokens of the statistics."""
    best = _best_static(statistics, sample)
    if best is None or statistics.first is None:
        return best
    later = _without_massive_channels(statistics, statistics.first)
    other = None if later is None else _best_static(later, _WeightSample.of(weights, later.sample))
    if other is not None and other.error < MAX_REPEATED_ERROR_RATIO * best.error:
        best = other
    return _aligned(best, statistics.first)


def _best_static(statistics: SiteStatistics, sample: _WeightSample) -> SmoothingChoice | None:
    choices = []
    for shift, divisors in _candidates(statistics, sample.rows, shifts=True, groups=None):
        max_abs = HEADROOM * (np.maximum(statistics.high - shift, shift - statistics.low) / divisors).max()
        if max_abs > NEGLIGIBLE:
            terms = _error_terms(statistics, sample, shift, divisors, centered=False)
            error = static_scale_error(terms, max_abs, float((1 / sample.outputs).mean()))
            layout = ChannelLayout(divisors, (np.arange(len(divisors)),))
            choices.append(SmoothingChoice(shift, layout, max_abs, error))
    return min(choices, key=lambda choice: choice.error, default=None)


def _without_massive_channels(statistics: SiteStatistics, first: FirstTokens) -> SiteStatistics | None:
    """The statistics without the values of massive channels at first tokens; None: there are no such channels."""
    center, reach = (first.low + first.high) / 2, (first.high - first.low) / 2
    massive = np.abs(first.mean - center) > MASSIVE * reach
    if not 0 < massive.sum() <= MAX_MASSIVE:
        return None
    far = np.abs(statistics.sample - center) > MASSIVE * reach
    return replace(
        statistics,
        low=np.where(massive, first.low, statistics.low),
        high=np.where(massive, first.high, statistics.high),
        sample=statistics.sample[~far[:, massive].any(axis=1)],
    )


def _aligned(choice: SmoothingChoice, first: FirstTokens) -> SmoothingChoice:
    """Move the shift of each channel so that the mean of first tokens is a multiple of its step.

    Where that is outside of the range of the scale, repeated channels have the rest.
    """
    assert choice.max_abs is not None
    steps = choice.layout.divisors * choice.max_abs / 127
    multiples = np.rint((first.mean - choice.shift) / steps)
    repeated = []
    for channel in np.flatnonzero(np.abs(multiples) > 127):
        size, sign = float(abs(multiples[channel])) - 127, int(np.sign(multiples[channel]))
        pairs = int(np.ceil(size / (2 * 127)))
        repeated.append(RepeatedChannel(int(channel), pairs, sign * round(size / (2 * pairs))))
        multiples[channel] = sign * 127 + 2 * pairs * repeated[-1].steps
    shift = (first.mean - multiples * steps).astype(np.float32)
    return replace(choice, shift=shift, repeated=tuple(repeated))


def _candidates(
    statistics: SiteStatistics, rows: Float32, *, shifts: bool, groups: ChannelGroups | None
) -> Iterator[tuple[Float32, Float32]]:
    """Candidates for shift and divisors, for weights of which `rows` [n, k] are a sample."""
    weight_max = np.maximum(np.abs(rows).max(axis=0), np.float32(1e-5))
    if groups is not None:
        weight_max = groups.maximum(weight_max)
    centers = [np.zeros_like(statistics.mean)]
    if shifts:
        low, high = np.quantile(statistics.sample, (0.005, 0.995), axis=0).astype(np.float32)
        centers += [(low + high) * np.float32(0.5), (statistics.low + statistics.high) * np.float32(0.5)]
    for center in centers:
        largest = np.maximum(statistics.high - center, center - statistics.low)
        for size in (largest, np.quantile(np.abs(statistics.sample - center), 0.99, axis=0)):
            activation_max = np.maximum(size.astype(np.float32), np.float32(1e-4))
            if groups is not None:
                activation_max = groups.maximum(activation_max)
            for strength in STRENGTHS:
                yield center, _divisors(activation_max, weight_max, strength)


def _divisors(activation_max: Float32, weight_max: Float32, strength: float) -> Float32:
    scale = activation_max**strength / weight_max ** (1 - strength)
    return (scale / np.exp(np.log(scale).mean())).astype(np.float32)


def _error_terms(
    statistics: SiteStatistics, sample: _WeightSample, shift: Float32, divisors: Float32, *, centered: bool
) -> ErrorTerms:
    deviations = np.square(statistics.sample - statistics.mean) / sample.outputs
    return ErrorTerms(
        tokens=((statistics.sample - shift) / divisors / np.sqrt(sample.outputs)).astype(np.float32),
        centered=centered,
        weights=np.abs(sample.rows) * divisors,
        gain=np.square(sample.rows).sum(axis=0) * np.square(divisors),
        variance=GPTQ_ERROR * deviations.mean(axis=0) / np.square(divisors),
    )


def _every(stride: int, rows: int) -> npt.NDArray[np.intp]:
    """Indices of every stride-th row, counted anew in each chunk of rows."""
    return np.concatenate([np.arange(start, stop, stride) for start, stop in row_chunks(rows)])
