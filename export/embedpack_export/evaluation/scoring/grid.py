"""Grid of the settings to measure: truncations, precisions and pool factors."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack.errors import OptionError, unknown
from embedpack.pack.folder import Pack
from embedpack.pack.heads import single_metric, single_vectors
from embedpack.vectors.bit_packing import fills_bytes
from embedpack.vectors.codes import PRECISIONS, Precision, check_precision, code_width, is_low_bit
from embedpack_export.evaluation.results import Setting

# Pool factors of multi-vectors.
POOL_FACTORS = (1, 2, 4)


class Grid:
    """Settings of a variant.

    Without named precisions and truncations the grid is complete, and full float32 vectors decide the exit status.
    Otherwise it holds the named ones, which all decide; an unnamed precision is float32, an unnamed truncation full.
    """

    def __init__(
        self,
        pack: Pack,
        precisions: Sequence[str] = (),
        truncate_dims: Sequence[int] = (),
        *,
        multi: bool = True,
    ) -> None:
        """Check the names; `multi` is False: multi-vectors are skipped.

        Raises:
            OptionError: there is no such precision or truncation.
            InputError: the pack has no single vectors.
        """
        head = single_vectors(pack)
        for dimensions in truncate_dims:
            if dimensions not in head.truncate_dims:
                raise OptionError(unknown("truncate_dim", dimensions, head.truncate_dims))
        named = [check_precision(name) for name in dict.fromkeys(precisions)]
        self._complete = not precisions and not truncate_dims
        self._precisions: Sequence[Precision] = PRECISIONS if self._complete else named or ["float32"]
        self._low_bits = head.normalized or head.similarity == "cosine"
        if named and not self._low_bits:
            for name in named:
                single_metric(pack.manifest, next(iter(pack.manifest.tasks))).check_precision(name)
        self._full = head.dimensions
        self._dims = head.truncate_dims if self._complete else tuple(truncate_dims) or (self._full,)
        # A named truncation asks for single vectors.
        tokens = pack.manifest.multi if multi and not truncate_dims else None
        self._multi = None if tokens is None else tokens.dimensions

    @property
    def has_multi(self) -> bool:
        """True if multi-vectors are measured."""
        return self._multi is not None

    def single(self, variant: str) -> list[Setting]:
        """Settings of single vectors, those of full dimensions first.

        Raises:
            InputError: a named precision has no codes of a named truncation.
        """
        return [
            Setting(variant, "single", dimensions, precision)
            for dimensions in sorted(set(self._dims), reverse=True)
            for precision in self._precisions
            if self._fits(precision, dimensions) and (self._low_bits or not is_low_bit(precision))
        ]

    def multi(self, variant: str) -> list[Setting]:
        """Settings of multi-vectors, which are not truncated; empty if they are not measured.

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

    def decides_exit_status(self, setting: Setting) -> bool:
        """True if the exit status depends on a setting."""
        if setting.pool_factor > 1:
            return False
        full = self._full if setting.vectors == "single" else self._multi
        return not self._complete or (setting.precision == "float32" and setting.dimensions == full)

    def _fits(self, precision: Precision, dimensions: int) -> bool:
        if not self._complete:
            code_width(precision, dimensions)
        return not is_low_bit(precision) or fills_bytes(precision, dimensions)
