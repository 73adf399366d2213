"""Which settings of a variant are measured."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack.errors import InputError, unknown
from embedpack.pack.manifest import Manifest
from embedpack.vectors.bit_packing import fills_bytes
from embedpack.vectors.codes import PRECISIONS, Precision, check_precision, code_width, is_low_bit
from embedpack_export.evaluation.results import Setting

# Pool factors of multi-vectors that are measured.
POOL_FACTORS = (1, 2, 4)


class Grid:
    """Truncations, precisions and pool factors.

    Where none is named, everything is measured, and whole float32 vectors count for the exit status. Else what is named
    is measured and counts; what is not is float32, or the full dimension.
    """

    def __init__(
        self,
        manifest: Manifest,
        precisions: Sequence[str] = (),
        truncate_dims: Sequence[int] = (),
        *,
        multi: bool = True,
    ) -> None:
        """Check the names; `multi` is False: multi-vectors are left out.

        Raises:
            InputError: there is no such precision or truncation.
        """
        for dimensions in truncate_dims:
            if dimensions not in manifest.truncate_dims:
                raise InputError(unknown("truncate_dim", dimensions, manifest.truncate_dims))
        named = [check_precision(name) for name in dict.fromkeys(precisions)]
        self._everything = not precisions and not truncate_dims
        self._precisions: Sequence[Precision] = PRECISIONS if self._everything else named or ["float32"]
        self._full = manifest.dimensions
        self._dims = manifest.truncate_dims if self._everything else tuple(truncate_dims) or (self._full,)
        # A truncation that is named asks for single vectors.
        self._multi = manifest.multi_vector_dimensions if multi and not truncate_dims else None

    @property
    def has_multi(self) -> bool:
        """Whether multi-vectors are measured."""
        return self._multi is not None

    def single(self, variant: str) -> list[Setting]:
        """Settings of single vectors, those of full dimensions first.

        Raises:
            InputError: a precision that was named has no codes of a dimension that was named.
        """
        return [
            Setting(variant, "single", dimensions, precision)
            for dimensions in sorted(set(self._dims), reverse=True)
            for precision in self._precisions
            if self._fits(precision, dimensions)
        ]

    def multi(self, variant: str) -> list[Setting]:
        """Settings of multi-vectors, which are not truncated; empty where there are none.

        Raises:
            InputError: as `single`.
        """
        if self._multi is None:
            return []
        return [
            Setting(variant, "multi", self._multi, precision, factor)
            for factor in POOL_FACTORS
            for precision in self._precisions
            if self._fits(precision, self._multi)
        ]

    def counts(self, setting: Setting) -> bool:
        """Whether the exit status depends on a setting."""
        if setting.pool_factor > 1:
            return False
        full = self._full if setting.vectors == "single" else self._multi
        return not self._everything or (setting.precision == "float32" and setting.dimensions == full)

    def _fits(self, precision: Precision, dimensions: int) -> bool:
        if not self._everything:
            code_width(precision, dimensions)
        return not is_low_bit(precision) or fills_bytes(precision, dimensions)
