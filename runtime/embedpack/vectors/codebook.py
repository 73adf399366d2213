"""Codebooks: where the low-bit codes of a vector space have their centre, their axes and their levels.

Of a vector x, y = R x - center is what is coded, each coordinate for itself, by the number of the nearest level:

    digit_i = number of thresholds below y_i; a threshold lies midway between two neighbouring levels
    value_i = center_i + level[digit_i], in the coordinates that R turned to

A digit does not depend on how many dimensions there are, so codes are nested: those of a truncated vector are the first
digits. R is made of blocks that lie between truncations for the same reason.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError

LowBit = Literal["4bit", "2bit", "ternary", "binary"]
LOW_BIT: tuple[LowBit, ...] = get_args(LowBit)

# The positive levels that code a standard Gaussian with the least squared error (Max 1960, Lloyd 1982).
GAUSSIAN_LEVELS: Mapping[LowBit, tuple[float, ...]] = {
    "4bit": (0.12839503, 0.38804830, 0.65675912, 0.94234046, 1.25623120, 1.61804639, 2.06901723, 2.73258957),
    "2bit": (0.45278003, 1.51041761),
    "ternary": (1.22400636,),
    "binary": (0.79788456,),
}
LEVEL_COUNTS: Mapping[LowBit, int] = {"4bit": 16, "2bit": 4, "ternary": 3, "binary": 2}

# How far the product of a block of a rotation with its transpose may be from the identity.
ORTHOGONAL = 1e-3
# Vectors have length 1, so what is far larger is damage; squares of it still fit float32.
LARGEST = 1e6

Float32 = npt.NDArray[np.float32]
Digits = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Codebook:
    """What turns unit vectors of one space into digits, and digits into values.

    Attributes:
        center: float32 [d], subtracted from rotated vectors.
        rotation: orthogonal blocks, float32 [b, b], along the diagonal of R, which add up to d; empty: no rotation.
        levels: of each low-bit precision, ascending: "4bit" float32 [16], "2bit" [4], "ternary" [3], "binary" [2].

    Raises:
        InputError: a shape, a type or a value is not as said here.
    """

    center: Float32
    rotation: tuple[Float32, ...]
    levels: Mapping[LowBit, Float32]

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise InputError(f"this is no codebook: {problem}; make the pack, or embed, again")

    @classmethod
    def gaussian(cls, center: Float32, spread: float, rotation: tuple[Float32, ...] = ()) -> Codebook:
        """The codebook for coordinates that are spread like a Gaussian with that standard deviation."""
        levels: dict[LowBit, Float32] = {}
        for precision, upper in GAUSSIAN_LEVELS.items():
            middle = [0.0] * (LEVEL_COUNTS[precision] % 2)
            unit_levels = [*(-level for level in reversed(upper)), *middle, *upper]
            levels[precision] = (np.array(unit_levels) * spread).astype(np.float32)
        return cls(center, rotation, levels)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], prefix: str = "") -> Codebook:
        """What `tensors` gave, of all the tensors whose names begin with `prefix`.

        Raises:
            InputError: a tensor is missing, or is none of a codebook.
        """
        left = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        blocks = sum(name.startswith("rotation.") for name in left)
        names = _names(blocks)
        if set(left) != set(names):
            raise InputError(
                f"expected the tensors of a codebook ({', '.join(prefix + name for name in names)}), "
                f"found: {', '.join(sorted(prefix + name for name in left)) or 'none'}"
            )
        return cls(
            left["center"],
            tuple(left[f"rotation.{number}"] for number in range(blocks)),
            {precision: left[f"levels.{precision}"] for precision in LOW_BIT},
        )

    def tensors(self, prefix: str = "") -> dict[str, Float32]:
        """All that the codebook is, by the names of safetensors files."""
        values = (self.center, *self.rotation, *(self.levels[precision] for precision in LOW_BIT))
        names = _names(len(self.rotation))
        return {prefix + name: value for name, value in zip(names, values, strict=True)}

    @functools.cached_property
    def id(self) -> str:
        """16 hexadecimal digits that only this codebook has: codes of two vectors can be compared where it is equal."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors().items():
            digest.update(f"{name} {tensor.shape}\n".encode() + np.ascontiguousarray(tensor, "<f4").tobytes())
        return digest.hexdigest()[:16]

    @property
    def dimensions(self) -> int:
        """Dimensions of full vectors."""
        return len(self.center)

    def check_dimensions(self, dimensions: int) -> None:
        """Refuse a number of dimensions that no truncation leaves.

        Raises:
            InputError: there are fewer, or a block of the rotation does not end there.
        """
        if not 1 <= dimensions <= self.dimensions:
            raise InputError(f"the codebook is one of {self.dimensions} dimensions, not of {dimensions}")
        ends = self._ends
        if ends and dimensions not in ends:
            known = ", ".join(map(str, ends))
            raise InputError(f"the codebook's rotation can be cut to {known} dimensions, not to {dimensions}")

    def rotate(self, vectors: Float32) -> Float32:
        """R x of vectors, float32 [n, d], also of truncated ones: float32 [n, d].

        Raises:
            InputError: as `check_dimensions`.
        """
        return self._turn(vectors, [block.T for block in self.rotation])

    def rotate_back(self, vectors: Float32) -> Float32:
        """What `rotate` did, undone."""
        return self._turn(vectors, list(self.rotation))

    def digits(self, vectors: Float32, precision: LowBit) -> Digits:
        """Digits of full or truncated vectors, float32 [n, d]: uint8 [n, d].

        Raises:
            InputError: as `check_dimensions`.
        """
        centered = self.rotate(vectors) - self.center[: vectors.shape[1]]
        levels = self.levels[precision]
        digits = np.zeros(centered.shape, np.uint8)
        for lower, upper in pairwise(levels):
            digits += centered > (lower + upper) / 2
        return digits

    def values(self, digits: Digits, precision: LowBit) -> Float32:
        """What digits, uint8 [n, d], stand for, in rotated coordinates and before it is brought to length 1."""
        return self.center[: digits.shape[1]] + self.levels[precision][digits]

    def length(self, dimensions: int) -> float:
        """About how long unit vectors are that were truncated to so many dimensions; 1 for full ones.

        What is coded are such prefixes as they are. Of a truncated vector that was brought back to length 1 the digits
        are those of its product with this number.

        Raises:
            InputError: as `check_dimensions`.
        """
        self.check_dimensions(dimensions)
        if dimensions == self.dimensions:
            return 1.0
        spread = np.diff(self.levels["binary"])[0] / (2 * GAUSSIAN_LEVELS["binary"][0])
        center = self.center[:dimensions]
        return float(min(1.0, np.sqrt(center @ center + dimensions * spread**2)))

    @functools.cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(len(block) for block in self.rotation))

    def _turn(self, vectors: Float32, blocks: list[Float32]) -> Float32:
        """Each stretch of the columns, multiplied by its block from the right."""
        self.check_dimensions(vectors.shape[1])
        if not blocks:
            return vectors
        turned = np.empty(vectors.shape, np.float32)
        for (start, stop), block in zip(pairwise((0, *self._ends)), blocks, strict=True):
            if start == vectors.shape[1]:
                break
            # In float64, so that a vector has the same digits whatever others are multiplied beside it.
            turned[:, start:stop] = vectors[:, start:stop].astype(np.float64) @ block.astype(np.float64)
        return turned


def _names(blocks: int) -> list[str]:
    """Names of the tensors of a codebook whose rotation has that many blocks."""
    rotation = [f"rotation.{number}" for number in range(blocks)]
    return ["center", *rotation, *(f"levels.{precision}" for precision in LOW_BIT)]


def _problems(codebook: Codebook) -> Iterator[str]:
    """What is wrong with a codebook; later ones rely on there being no earlier ones."""
    if set(codebook.levels) != set(LOW_BIT):
        yield f"it has levels for {', '.join(sorted(codebook.levels)) or 'nothing'}, not for {', '.join(LOW_BIT)}"
    yield from _bad_tensors(codebook)
    for precision in LOW_BIT:
        if not (np.diff(codebook.levels[precision]) > 0).all():
            yield f"levels.{precision} do not ascend"
    total = sum(map(len, codebook.rotation))
    if codebook.rotation and total != codebook.dimensions:
        yield f"the blocks of the rotation add up to {total} dimensions, the center has {codebook.dimensions}"
    for number, block in enumerate(codebook.rotation):
        error = np.abs(block @ block.T - np.eye(len(block), dtype=np.float32)).max()
        if not error <= ORTHOGONAL:
            yield f"rotation.{number} is not orthogonal: its product with its transpose is off by {error:.2g}"


def _bad_tensors(codebook: Codebook) -> Iterator[str]:
    # At least 1, so that neither an empty array nor one without axes passes.
    lengths = [max((1, *tensor.shape[:1])) for tensor in (codebook.center, *codebook.rotation)]
    shapes = [(lengths[0],), *((length, length) for length in lengths[1:])]
    shapes += [(LEVEL_COUNTS[precision],) for precision in LOW_BIT]
    for (name, tensor), shape in zip(codebook.tensors().items(), shapes, strict=True):
        if tensor.dtype != np.float32 or tensor.shape != shape:
            yield (
                f"{name} is an array {list(tensor.shape)} of type {tensor.dtype}, "
                f"expected {list(shape)} of type float32"
            )
        # Written so that NaN is refused too.
        if not (np.abs(tensor) <= LARGEST).all():
            yield f"{name} holds values that are not finite or beyond {LARGEST:g}"
