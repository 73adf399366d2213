"""Scales, rounding and packing of integer weights.

int8     symmetric, one scale per output channel (row):  w ~ q * s,  s = max|w| / 127, or more if neighbouring
         columns would overflow (`paired_scales`)
blocks   symmetric, one scale per block of columns:      w ~ q * s,  -2^(bits-1) <= q < 2^(bits-1)

The block form is that of onnxruntime's MatMulNBits and GatherBlockQuantized (ContribOperators.md): values are stored
with 2^(bits-1) added, low bits first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32

# x86 without VNNI adds the u8 x s8 products of two neighbouring columns in 16 bits, which saturate at 32,767. Two
# weights of the same sign fit if their absolute sum is at most this (255 * 128 = 32,640); weights of different signs
# always fit.
MAX_PAIR_SUM = 128
# Room for the rounding of the two weights.
PAIR_MARGIN = 2
# Candidates for a block's scale, relative to the scale that represents the extreme element exactly: at 4 bits, clipping
# the extreme a little often lowers the error of the block.
SHRINK = tuple(np.linspace(0.975, 0.7, 12, dtype=np.float32))


@dataclass
class ErrorSum:
    """Sums of squared errors and of squared values."""

    error: float = 0.0
    size: float = 0.0

    def add(self, exact: Float32, rounded: Float32) -> None:
        """Add a chunk."""
        self.error += float(np.square(exact - rounded, dtype=np.float64).sum())
        self.size += float(np.square(exact, dtype=np.float64).sum())

    @property
    def relative(self) -> float:
        """Relative error ||w - q(w)|| / ||w||."""
        return (self.error / max(self.size, 1e-30)) ** 0.5


def int8_scales(rows: Float32) -> Float32:
    """Scale of each row of float32 [n, k], float32 [n]; 1 for a row of zeros."""
    scales = np.abs(rows).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1
    return scales


def paired_scales(rows: Float32) -> Float32:
    """Scale of each row as in `int8_scales`, larger if neighbouring columns would sum to more than `MAX_PAIR_SUM`."""
    left, right = _neighbours(rows)
    sums = np.where(left * right > 0, np.abs(left + right), np.float32(0))
    return np.maximum(int8_scales(rows), sums.max(axis=1, initial=0) / np.float32(MAX_PAIR_SUM - PAIR_MARGIN))


def within_pairs(values: Float32) -> Float32:
    """Reduce the larger of two neighbouring integers in [n, k] if they sum to more than `MAX_PAIR_SUM`."""
    values = values.copy()
    left, right = _neighbours(values)
    excess = np.where(left * right > 0, np.maximum(np.abs(left + right) - MAX_PAIR_SUM, 0), 0) * np.sign(left)
    larger = np.abs(left) >= np.abs(right)
    left -= np.where(larger, excess, 0)
    right -= np.where(larger, 0, excess)
    return values


def _neighbours(rows: Float32) -> tuple[Float32, Float32]:
    """Columns 0, 2, .. and 1, 3, .. of [n, k], as views; the last of an odd number has no neighbour."""
    even = rows.shape[1] // 2 * 2
    return rows[:, 0:even:2], rows[:, 1:even:2]


def block_scales(rows: Float32, bits: int, block: int) -> Float32:
    """Scale of each block of each row of float32 [n, k], float32 [n, blocks].

    The extreme element maps to -2^(bits-1), so a scale may be negative. At 4 bits the scale is smaller if that lowers
    the squared error of the block.
    """
    blocks = _blocks(rows, block)
    half = 1 << (bits - 1)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1) / np.float32(-half)
    scales = np.where(largest == 0, np.float32(1), largest)
    if bits == 4:
        best = _block_error(blocks, scales, half)
        for shrink in SHRINK:
            error = _block_error(blocks, largest * shrink + (largest == 0), half)
            scales = np.where(error < best, largest * shrink + (largest == 0), scales)
            best = np.minimum(best, error)
    return scales[..., 0].astype(np.float32)


@dataclass(frozen=True)
class QuantizedScales:
    """Scales of blocks, one byte each: scale = code * step of the row."""

    codes: npt.NDArray[np.int8]  # int8 [n, blocks], never 0
    steps: Float32  # float32 [n, 1]

    @classmethod
    def of(cls, scales: Float32) -> QuantizedScales:
        """Round scales float32 [n, blocks], none of which is 0."""
        steps = np.abs(scales).max(axis=1, keepdims=True) / np.float32(127)
        codes = np.rint(scales / steps)
        return cls(np.where(codes == 0, np.copysign(1, scales), codes).astype(np.int8), steps)

    @property
    def values(self) -> Float32:
        """The scales, float32 [n, blocks]."""
        return self.codes * self.steps


def round_nearest(rows: Float32, scales: Float32, bits: int, block: int) -> Float32:
    """Round float32 [n, k] to the nearest integers under scales [n, blocks]; float32 [n, k]."""
    half = 1 << (bits - 1)
    by_column = np.repeat(scales, block, axis=1)[:, : rows.shape[1]]
    return np.clip(np.rint(rows / by_column), -half, half - 1)


def dequantize_blocks(values: Float32, scales: Float32, block: int) -> Float32:
    """Multiply values [n, k] by the scales of their blocks [n, blocks]."""
    return values * np.repeat(scales, block, axis=1)[:, : values.shape[1]]


def pack_blocks(values: Float32, bits: int, block: int) -> npt.NDArray[np.uint8]:
    """Pack integers [n, k] as uint8 [n, blocks, block * bits / 8]; a short last block is padded with zeros."""
    codes = (_blocks(values, block) + (1 << (bits - 1))).astype(np.uint8)
    return codes[..., 0::2] | codes[..., 1::2] << np.uint8(4) if bits == 4 else codes


def _blocks(rows: Float32, block: int) -> Float32:
    count = -(-rows.shape[1] // block)
    return np.pad(rows, ((0, 0), (0, count * block - rows.shape[1]))).reshape(len(rows), count, block)


def _block_error(blocks: Float32, scales: Float32, half: int) -> Float32:
    rounded = np.clip(np.rint(blocks / scales), -half, half - 1) * scales
    return np.square(blocks - rounded).sum(-1, keepdims=True)
