"""Codebooks for tests, and decoded codes in float64, implemented again from the tables of the definition."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import LOW_BIT, Codebook
from embedpack.vectors.codes import PRECISIONS, Codes, Precision, check_precision
from embedpack_export.arrays import Float64

SCALE = 0.004
BLOCKS = (8, 8, 16)
DIMENSIONS = sum(BLOCKS)
# Precisions of queries and documents between which there are scores.
COMPARABLE = [(left, right) for left in PRECISIONS for right in PRECISIONS if left not in LOW_BIT or left == right]
# Those whose scores are cosines: of two bits it is the Hamming distance that counts.
COSINES = [pair for pair in COMPARABLE if pair != ("binary", "binary")]
# (digits in a byte, levels)
PACKED = {"4bit": (2, 16), "2bit": (4, 4), "ternary": (5, 3), "binary": (8, 2)}


def rotation_of(seed: int, blocks: tuple[int, ...] = BLOCKS) -> tuple[Float32, ...]:
    random = np.random.default_rng(seed)
    return tuple(np.linalg.qr(random.standard_normal((size, size)))[0].astype(np.float32) for size in blocks)


@functools.cache
def codebook_of(seed: int = 0, blocks: tuple[int, ...] = BLOCKS, dimensions: int = DIMENSIONS) -> Codebook:
    """A codebook for unit vectors, rotated where there are blocks."""
    center = np.random.default_rng(seed).normal(0, 0.3, dimensions) / dimensions**0.5
    return Codebook.gaussian(center.astype(np.float32), dimensions**-0.5, rotation_of(seed, blocks))


def coder(precision: str, dimensions: int, blocks: tuple[int, ...] = ()) -> float | Codebook | None:
    """Coder of a precision; always the same one."""
    if precision == "int8":
        return SCALE
    return codebook_of(0, blocks, dimensions) if precision in LOW_BIT else None


def book(precision: str, dimensions: int, blocks: tuple[int, ...] = ()) -> Codebook | None:
    """The codebook of codes of that precision."""
    found = coder(precision, dimensions, blocks)
    return found if isinstance(found, Codebook) else None


def unit64(vectors: npt.ArrayLike) -> Float64:
    values = np.asarray(vectors, np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-300)


def by_definition(codes: Codes, precision: str, dimensions: int, codebook: Codebook | None) -> Float64:
    """Unit vectors of codes in float64, [n, dimensions]."""
    if precision not in PACKED:
        return unit64(codes)
    assert codebook is not None
    known = check_precision(precision)
    levels = np.asarray(codebook.tensors()[f"levels.{known}"], np.float64)
    values = codebook.center[:dimensions] + levels[digits_of(codes, known, dimensions)]
    return unit64(values) @ whole_rotation(codebook)[:dimensions, :dimensions]


def digits_of(codes: Codes, precision: Precision, dimensions: int) -> npt.NDArray[np.int64]:
    per_byte, base = PACKED[precision]
    places = base ** np.arange(per_byte - 1, -1, -1)
    digits = codes.astype(np.int64)[:, :, None] // places % base
    return digits.reshape(len(codes), codes.shape[1] * per_byte)[:, :dimensions]


def whole_rotation(codebook: Codebook) -> Float64:
    """R, with its blocks along the diagonal."""
    rotation = np.eye(codebook.dimensions)
    start = 0
    for block in codebook.rotation:
        rotation[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return rotation
