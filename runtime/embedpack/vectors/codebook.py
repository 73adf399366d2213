"""Codebooks: center, rotation and levels of the low-bit codes of a vector space.

A vector x is coded as y = R x - center. Each coordinate becomes a digit, the number of its nearest level:

    digit_i = number of thresholds below y_i; a threshold lies midway between two neighbouring levels
    value_i = center_i + level[digit_i], in rotated coordinates

A digit does not depend on the number of dimensions, so codes are nested: the code of a truncated vector is a prefix of
the digits. For the same reason R is block-diagonal, and every truncation ends at the end of a block.
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
from embedpack.vectors.arrays import Float32

LowBit = Literal["4bit", "2bit", "ternary", "binary"]
LOW_BIT: tuple[LowBit, ...] = get_args(LowBit)

# Positive levels with the least squared error for a standard Gaussian (Max 1960, Lloyd 1982).
GAUSSIAN_LEVELS: Mapping[LowBit, tuple[float, ...]] = {
    "4bit": (0.12839503, 0.38804830, 0.65675912, 0.94234046, 1.25623120, 1.61804639, 2.06901723, 2.73258957),
    "2bit": (0.45278003, 1.51041761),
    "ternary": (1.22400636,),
    "binary": (0.79788456,),
}
LEVEL_COUNTS: Mapping[LowBit, int] = {"4bit": 16, "2bit": 4, "ternary": 3, "binary": 2}

# Largest difference between the product of a block of a rotation with its transpose and the identity.
ORTHOGONALITY_TOLERANCE = 1e-3
# Vectors have length 1, so a far larger value is damage. Squares of this one still fit float32.
MAX_VALUE = 1e6

Digits = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Codebook:
    """Quantizer of the unit vectors of one space: vectors to digits, digits to values.

    Attributes:
        center: float32 [d], subtracted from rotated vectors.
        rotation: orthogonal blocks, float32 [b, b], of the diagonal of R; sizes add up to d. Empty: no rotation.
        levels: ascending levels by low-bit precision: "4bit" float32 [16], "2bit" [4], "ternary" [3], "binary" [2].

    Raises:
        InputError: a shape, dtype or value differs from this description.
    """

    center: Float32
    rotation: tuple[Float32, ...]
    levels: Mapping[LowBit, Float32]

    def __post_init__(self) -> None:
        for error in _validation_errors(self):
            raise InputError(f"invalid codebook: {error}; export the pack, or embed, again")

    @classmethod
    def gaussian(cls, center: Float32, spread: float, rotation: tuple[Float32, ...] = ()) -> Codebook:
        """Codebook for Gaussian coordinates of standard deviation `spread`."""
        levels: dict[LowBit, Float32] = {}
        for precision, upper in GAUSSIAN_LEVELS.items():
            middle = [0.0] * (LEVEL_COUNTS[precision] % 2)
            unit_levels = [*(-level for level in reversed(upper)), *middle, *upper]
            levels[precision] = (np.array(unit_levels) * spread).astype(np.float32)
        return cls(center, rotation, levels)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], prefix: str = "") -> Codebook:
        """Invert `tensors`; InputError if names with this prefix are not those of a codebook."""
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        blocks = sum(name.startswith("rotation.") for name in own)
        names = _names(blocks)
        if set(own) != set(names):
            raise InputError(
                f"expected the tensors of a codebook ({', '.join(prefix + name for name in names)}), "
                f"found: {', '.join(sorted(prefix + name for name in own)) or 'none'}"
            )
        return cls(
            own["center"],
            tuple(own[f"rotation.{number}"] for number in range(blocks)),
            {precision: own[f"levels.{precision}"] for precision in LOW_BIT},
        )

    def tensors(self, prefix: str = "") -> dict[str, Float32]:
        """Tensors of the codebook by their names in safetensors files."""
        values = (self.center, *self.rotation, *(self.levels[precision] for precision in LOW_BIT))
        names = _names(len(self.rotation))
        return {prefix + name: value for name, value in zip(names, values, strict=True)}

    @functools.cached_property
    def id(self) -> str:
        """Digest of 16 hexadecimal digits; codes of the same id can be compared."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors().items():
            digest.update(f"{name} {tensor.shape}\n".encode() + np.ascontiguousarray(tensor, "<f4").tobytes())
        return digest.hexdigest()[:16]

    @property
    def dimensions(self) -> int:
        """Number of dimensions of full vectors."""
        return len(self.center)

    def check_dimensions(self, dimensions: int) -> None:
        """Raise InputError for a truncation beyond the full dimensions, or within a block of the rotation."""
        if not 1 <= dimensions <= self.dimensions:
            raise InputError(f"the codebook has {self.dimensions} dimensions, not {dimensions}")
        ends = self._ends
        if ends and dimensions not in ends:
            allowed = ", ".join(map(str, ends))
            raise InputError(f"the codebook's rotation can be truncated to {allowed} dimensions, not to {dimensions}")

    def rotate(self, vectors: Float32) -> Float32:
        """Rotate full or truncated vectors, float32 [n, d], by R; InputError as `check_dimensions`."""
        return self._turn(vectors, [block.T for block in self.rotation])

    def rotate_back(self, vectors: Float32) -> Float32:
        """Invert `rotate`."""
        return self._turn(vectors, list(self.rotation))

    def centered(self, vectors: Float32) -> Float32:
        """R x - center of full or truncated vectors x, float32 [n, d]; InputError as `check_dimensions`."""
        return self.rotate(vectors) - self.center[: vectors.shape[1]]

    def digits(self, vectors: Float32, precision: LowBit) -> Digits:
        """Index of the level nearest to each coordinate, uint8 [n, d], of full or truncated vectors, float32 [n, d].

        InputError if the codebook has fewer dimensions.
        """
        centered = self.centered(vectors)
        digits = np.zeros(centered.shape, np.uint8)
        for lower, upper in pairwise(self.levels[precision]):
            digits += centered > (lower + upper) / 2
        return digits

    def values(self, digits: Digits, precision: LowBit) -> Float32:
        """Values of digits, uint8 [n, d], in rotated coordinates, not normalized; float32 [n, d]."""
        return self.center[: digits.shape[1]] + self.levels[precision][digits]

    def length(self, dimensions: int) -> float:
        """Expected length of a unit vector after truncation to `dimensions`; 1 for full vectors.

        Codes of truncated vectors are those of unnormalized prefixes. Multiply a truncated and normalized vector by
        this number before its digits are computed. InputError as `check_dimensions`.
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
        """Multiply each group of columns by its block from the right."""
        self.check_dimensions(vectors.shape[1])
        if not blocks:
            return vectors
        rotated = np.empty(vectors.shape, np.float32)
        for (start, stop), block in zip(pairwise((0, *self._ends)), blocks, strict=True):
            if start == vectors.shape[1]:
                break
            # In float64, so that the digits of a vector do not depend on the other vectors of the batch.
            rotated[:, start:stop] = vectors[:, start:stop].astype(np.float64) @ block.astype(np.float64)
        return rotated


def _names(blocks: int) -> list[str]:
    """Names of the tensors of a codebook with a rotation of that many blocks."""
    rotation = [f"rotation.{number}" for number in range(blocks)]
    return ["center", *rotation, *(f"levels.{precision}" for precision in LOW_BIT)]


def _validation_errors(codebook: Codebook) -> Iterator[str]:
    """Validation errors, in order. Take only the first: later checks assume that earlier ones passed."""
    if set(codebook.levels) != set(LOW_BIT):
        yield f"it has levels for {', '.join(sorted(codebook.levels)) or 'nothing'}, not for {', '.join(LOW_BIT)}"
    yield from _tensor_errors(codebook)
    for precision in LOW_BIT:
        if not (np.diff(codebook.levels[precision]) > 0).all():
            yield f"levels.{precision} do not ascend"
    total = sum(map(len, codebook.rotation))
    if codebook.rotation and total != codebook.dimensions:
        yield f"the blocks of the rotation add up to {total} dimensions, the center has {codebook.dimensions}"
    for number, block in enumerate(codebook.rotation):
        error = np.abs(block @ block.T - np.eye(len(block), dtype=np.float32)).max()
        if not error <= ORTHOGONALITY_TOLERANCE:
            yield f"rotation.{number} is not orthogonal: its product with its transpose is off by {error:.2g}"


def _tensor_errors(codebook: Codebook) -> Iterator[str]:
    # At least 1, so that neither an empty array nor one without axes passes.
    lengths = [max((1, *tensor.shape[:1])) for tensor in (codebook.center, *codebook.rotation)]
    shapes = [(lengths[0],), *((length, length) for length in lengths[1:])]
    shapes += [(LEVEL_COUNTS[precision],) for precision in LOW_BIT]
    for (name, tensor), shape in zip(codebook.tensors().items(), shapes, strict=True):
        if tensor.dtype != np.float32 or tensor.shape != shape:
            found = f"an array {list(tensor.shape)} of type {tensor.dtype}"
            yield f"{name} is {found}, expected {list(shape)} of type float32"
        # Written so that NaN is an error, too.
        if not (np.abs(tensor) <= MAX_VALUE).all():
            yield f"{name} holds values that are not finite or beyond {MAX_VALUE:g}"
