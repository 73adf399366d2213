"""Grid of the settings to measure: truncations, precisions and pool factors."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack.errors import OptionError, unknown
from embedpack.pack.folder import Pack
from embedpack.pack.heads import multi_vectors, single_metric
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
        """Check the names; `multi` is False: multi-vectors are skipped, unless the pack has no others.

        Raises:
            OptionError: there is no such precision or truncation.
        """
        single, tokens = pack.manifest.single, pack.manifest.multi
        head = single or multi_vectors(pack)
        for dimensions in truncate_dims:
            if dimensions not in head.truncate_dims:
                raise OptionError(unknown("truncate_dim", dimensions, head.truncate_dims))
        named = [check_precision(name) for name in dict.fromkeys(precisions)]
        self._complete = not precisions and not truncate_dims
        self._precisions: Sequence[Precision] = PRECISIONS if self._complete else named or ["float32"]
        self._low_bits = single is None or single.normalized or single.similarity == "cosine"
        if named and not self._low_bits:
            for name in named:
                single_metric(pack.manifest, next(iter(pack.manifest.tasks))).check_precision(name)
        self._full = head.dimensions
        self._dims = head.truncate_dims if self._complete else tuple(truncate_dims) or (self._full,)
        self.has_single = single is not None
        # A named truncation asks for single vectors, if there are any.
        measured = single is None or (multi and not truncate_dims)
        self._multi = tokens.dimensions if tokens is not None and measured else None

    @property
    def has_multi(self) -> bool:
        """True if multi-vectors are measured."""
        return self._multi is not None

    def single(self, variant: str) -> list[Setting]:
        """Settings of single vectors, those of full dimensions first; empty if there are none.

        Raises:
            InputError: a named precision has no codes of a named truncation.
        """
        if not self.has_single:
            return []
        return [
            Setting(variant, "single", dimensions, precision)
            for dimensions in sorted(set(self._dims), reverse=True)
            for precision in self._precisions
            if self._fits(precision, dimensions) and (self._low_bits or not is_low_bit(precision))
        ]

    def multi(self, variant: str) -> list[Setting]:
        """Settings of multi-vectors, truncated only where the pack has no others; empty if they are not measured.

        Raises:
            InputError: as `single`.
        """
        if self._multi is None:
            return []
        dims = (self._multi,) if self.has_single else sorted(set(self._dims), reverse=True)
        return [
            Setting(variant, "multi", dimensions, precision, factor)
            for factor in POOL_FACTORS
            for dimensions in dims
            for precision in self._precisions
            if self._fits(precision, dimensions)
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
