"""Vectors to codes and back: the one definition of every precision.

Codes are nested (Matryoshka codes): the first d values of a code are the code of the vector truncated to d, bit for
bit. So a code is made from the full unit vector with one scale, or codebook, for all dimensions; what truncation
changes, the length, is restored when codes are decoded.

| precision | stored                             | value i of the vector, before it is brought to length 1 |
|-----------|------------------------------------|----------------------------------------------------------|
| float32   | float32 [n, d]                     | x_i                                                      |
| float16   | float16 [n, d]                     | x_i                                                      |
| int8      | int8 [n, d], -127..127             | q_i * scale, q_i = clip(rint(x_i / scale))               |
| 4bit      | uint8 [n, d/2], 16 levels          | in the coordinates of the codebook: center_i + level of  |
| 2bit      | uint8 [n, d/4], 4 levels           | digit_i; turned back by its rotation, where it has one   |
| ternary   | uint8 [n, d/5], rounded up, 3      |                                                          |
| binary    | uint8 [n, d/8], 2 levels           |                                                          |

Vectors have length 1, unless those of their space keep other lengths: `embedpack.vectors.metric`.

`embedpack.vectors.codebook` defines digits, levels, center and rotation, `embedpack.vectors.bit_packing` the layout of
digits in bytes.
"""

from __future__ import annotations

from typing import Any, Literal, TypeGuard, get_args

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, OptionError, unknown
from embedpack.vectors.arrays import Float32
from embedpack.vectors.bit_packing import cut, pack, packed_width, unpack
from embedpack.vectors.codebook import LOW_BIT, Codebook, LowBit

Precision = Literal["float32", "float16", "int8", "4bit", "2bit", "ternary", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

DTYPES: dict[Precision, type[np.generic]] = {
    "float32": np.float32, "float16": np.float16, "int8": np.int8,
    "4bit": np.uint8, "2bit": np.uint8, "ternary": np.uint8, "binary": np.uint8,
}  # fmt: skip

# Shorter vectors are not normalized to length 1.
MIN_LENGTH = np.float32(1e-12)
# The square of a longer one overflows.
MAX_LENGTH = np.sqrt(np.finfo(np.float32).max)
# Largest difference of the length of a vector of a graph from 1; rounding alone gives 1e-6.
UNIT_TOLERANCE = np.float32(1e-3)

Codes = npt.NDArray[Any]


def check_precision(precision: str) -> Precision:
    """Return a checked name of a precision; OptionError if it is unknown."""
    for name in PRECISIONS:
        if precision == name:
            return name
    raise OptionError(unknown("precision", precision, PRECISIONS))


def is_low_bit(precision: Precision) -> TypeGuard[LowBit]:
    """True for precisions whose codes need a codebook."""
    return precision in LOW_BIT


def code_width(precision: Precision, dimensions: int) -> int:
    """Number of columns of the code array; InputError if the precision needs whole bytes that are not filled."""
    return packed_width(precision, dimensions) if is_low_bit(precision) else dimensions


def check_codes(codes: Codes, precision: str, dimensions: int, codebook: Codebook | None) -> None:
    """Raise InputError if an array differs from the table of this module, or the codebook does not belong to it."""
    checked = check_precision(precision)
    width = code_width(checked, dimensions)
    if codes.ndim != 2 or codes.shape[1] != width or codes.dtype != DTYPES[checked]:
        expected = f"[n, {width}] of type {np.dtype(DTYPES[checked])}"
        raise InputError(
            f"{checked} codes of {dimensions} dimensions are an array {expected}, "
            f"not {list(codes.shape)} of type {codes.dtype}"
        )
    if not is_low_bit(checked):
        if codebook is not None:
            raise InputError(f"precision {checked!r} takes no codebook; leave codebook= out")
    elif codebook is None:
        raise InputError(f"{checked} codes need the codebook that made them; pass codebook=")
    else:
        codebook.check_dimensions(dimensions)


class DirectionError(InputError):
    """A vector has no direction: it is zero or not finite, or its length underflows or overflows.

    Attributes:
        row: its number.
    """

    def __init__(self, row: int, what: str = "vector") -> None:
        super().__init__(f"{what} {row} is zero or not finite, so it has no direction; leave it out, or embed it again")
        self.row = row


def check_vectors(vectors: Codes, first: int = 0) -> None:
    """Raise DirectionError if a vector of [n, d] has no direction; `first` is the number of the first one."""
    _check_range(vectors.astype(np.float32, copy=False), (MIN_LENGTH, MAX_LENGTH), first)


def check_unit(vectors: Float32, first: int = 0) -> None:
    """Raise DirectionError if a vector of [n, d] has not the length 1; `first` is the number of the first one."""
    _check_range(vectors, (1 - UNIT_TOLERANCE, 1 + UNIT_TOLERANCE), first)


def _check_range(vectors: Float32, lengths: tuple[np.float32, np.float32], first: int) -> None:
    """Raise DirectionError if a vector of [n, d] is shorter or longer than this range."""
    # Few calls for many vectors or one; einsum does not report an overflow, which is found below.
    found = np.einsum("ij,ij->i", vectors, vectors)
    low, high = (length * length for length in lengths)
    # Minimum and maximum are NaN if a length is, and comparisons with NaN are false.
    if not (low <= np.minimum.reduce(found, initial=high) and np.maximum.reduce(found, initial=low) <= high):
        raise DirectionError(first + int(np.argmin((low <= found) & (found <= high))))


def _lengths(vectors: Float32) -> npt.NDArray[Any]:
    """Lengths of vectors [..., d], as [..., 1]."""
    # The numbers of np.linalg.norm, which takes three times as long for one vector.
    with np.errstate(over="ignore", invalid="ignore"):
        lengths: npt.NDArray[Any] = np.sqrt(np.add.reduce(vectors * vectors, axis=-1, keepdims=True))
    return lengths


def _check_lengths(lengths: npt.NDArray[Any], first: int = 0, *, may_be_zero: bool = False) -> None:
    # Comparisons with NaN are false.
    usable = (lengths >= MIN_LENGTH) & (lengths < np.inf)
    if may_be_zero:
        usable |= lengths == 0
    if not usable.all():
        raise DirectionError(first + int(np.argmin(usable)))


def unit(vectors: Float32) -> Float32:
    """Normalize vectors [..., d] to length 1; a zero vector stays zero."""
    return vectors / np.maximum(_lengths(vectors), MIN_LENGTH)


def quantize(
    vectors: Float32, precision: Precision, quantizer: float | Codebook | None = None, first: int = 0
) -> Codes:
    """Codes of unit vectors, float32 [n, d], at full dimensions.

    The graphs return the same int8 codes, and the same binary codes except for coordinates on the threshold.
    `quantizer` is the scale for int8, the codebook for low-bit codes, else None; `first` the number of the first vector
    in messages. InputError if a vector is zero or not finite, or `quantizer` does not go with the precision.
    """
    check_vectors(vectors, first)
    if isinstance(quantizer, Codebook):
        if is_low_bit(precision):
            return pack(quantizer.digits(vectors, precision), precision)
    elif quantizer is not None:
        if precision == "int8":
            return _checked(np.clip(np.rint(vectors * inverse_scale(quantizer)), -127, 127).astype(np.int8), first)
    elif precision in ("float32", "float16"):
        with np.errstate(over="ignore"):
            return _checked(vectors.astype(DTYPES[precision]), first)
    needed = "a scale" if precision == "int8" else "a codebook" if is_low_bit(precision) else "nothing"
    raise InputError(f"{precision} codes are made by {needed}, not by {type(quantizer).__name__}")


def _checked(codes: Codes, first: int) -> Codes:
    """Codes of small vectors could be zeros, and large values infinite in float16."""
    check_vectors(codes, first)
    return codes


def inverse_scale(scale: float) -> np.float32:
    """Factor that graphs and numpy multiply by to quantize; a division would round differently."""
    return np.float32(1.0) / np.float32(scale)


def check_truncation(dimensions: int, wanted: int) -> None:
    """Raise InputError if vectors of `dimensions` cannot be truncated to `wanted`."""
    if not 1 <= wanted <= dimensions:
        raise InputError(f"cannot truncate {dimensions} dimensions to {wanted}; pass 1 to {dimensions}")


def truncate(codes: Codes, precision: Precision, dimensions: int, *, normalized: bool = True) -> Codes:
    """Codes of the same vectors truncated to `dimensions`; those of float precisions are brought to length 1 again.

    `normalized` false: the vectors have lengths of their own, and keep their first values as they are.
    """
    if is_low_bit(precision):
        return cut(codes, precision, dimensions)
    shorter = dimensions < codes.shape[1]
    codes = np.ascontiguousarray(codes[:, :dimensions])
    if shorter and normalized and precision in ("float32", "float16"):
        codes = unit(codes.astype(np.float32))
    return codes.astype(DTYPES[precision], copy=False)


def decode(codes: Codes, precision: Precision, dimensions: int, codebook: Codebook | None = None) -> Float32:
    """Decode to unit vectors, float32 [n, dimensions]; int8 needs no scale, as the result has length 1.

    A zero vector, of int8 codes that were truncated for example, stays zero. InputError if a byte is not a valid code,
    or a vector has no direction for another reason.
    """
    if codebook is not None and is_low_bit(precision):
        return codebook.rotate_back(decode_in_codebook_space(codes, precision, dimensions, codebook))
    return decode_in_codebook_space(codes, precision, dimensions, None)


def decode_in_codebook_space(
    codes: Codes, precision: Precision, dimensions: int, codebook: Codebook | None, *, may_be_zero: bool = True
) -> Float32:
    """Decode to unit vectors in the rotated coordinates of a codebook; float32 [n, dimensions].

    Scores are the same in these coordinates, and low-bit codes are already in them, so only the other side of a score
    has to be rotated. Without a codebook the coordinates are those of the model. InputError as `decode`, and for zeros
    unless they `may_be_zero`.
    """
    if is_low_bit(precision):
        assert codebook is not None, precision
        values = unpack(codes, precision, dimensions, codebook.levels[precision])
        values += codebook.center[:dimensions]
    else:
        values = codes.astype(np.float32)
    lengths = _lengths(values)
    _check_lengths(lengths, may_be_zero=may_be_zero)
    vectors: Float32 = values / np.maximum(lengths, MIN_LENGTH)
    return vectors if codebook is None or is_low_bit(precision) else codebook.rotate(vectors)
