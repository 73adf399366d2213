"""Lengths and similarity of the vectors of a space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedpack.errors import InputError, OptionError
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import Precision, is_low_bit, unit

Similarity = Literal["cosine", "dot"]


@dataclass(frozen=True)
class Metric:
    """Lengths and similarity of the vectors of a space; equal for all its precisions.

    Of vectors with lengths of their own that are ranked by cosine, codes below float16 keep the direction: they are
    codes of the vectors of length 1. Of those that are ranked by dot product, int8 codes keep the length, and low-bit
    codes do not exist.

    Attributes:
        normalized: true: vectors have length 1, also after truncation; false: the lengths that the model gives them.
        similarity: "cosine" or "dot".
        int8_scale: scale of int8 codes, if the similarity is "dot"; else None.

    Raises:
        InputError: the scale is missing or of no use, or vectors of length 1 have another similarity than cosine.
    """

    normalized: bool = True
    similarity: Similarity = "cosine"
    int8_scale: float | None = None

    def __post_init__(self) -> None:
        if self.normalized and self.similarity != "cosine":
            raise InputError("vectors of length 1 are compared by cosine; pass similarity='cosine'")
        if (self.similarity == "dot") != (self.int8_scale is not None):
            raise InputError("int8_scale goes with similarity='dot'; pass both or neither")

    @property
    def has_low_bits(self) -> bool:
        """True if there are low-bit codes."""
        return self.similarity == "cosine"

    def check_precision(self, precision: Precision) -> None:
        """Raise OptionError for a precision that loses what the similarity needs."""
        if is_low_bit(precision) and not self.has_low_bits:
            raise OptionError(
                f"{precision} codes keep the direction of a vector, and not its length, which the dot product of this "
                "model needs; use float32, float16 or int8"
            )

    def of_codes(self, vectors: Float32, precision: Precision) -> Float32:
        """The vectors that codes of a precision are made of: vectors of length 1, unless lengths are kept."""
        keeps_lengths = self.normalized or precision in ("float32", "float16") or self.similarity == "dot"
        return vectors if keeps_lengths else unit(vectors)


# Vectors of length 1, compared by cosine.
UNIT = Metric()
