"""Relative size of the change that an adapter makes to a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import ReadRows, RowIndex


@dataclass
class RelativeChange:
    """||W' - W|| / ||W|| of a matrix that an adapter changes, summed while its rows are read for the first time."""

    rows: int = 0  # number of rows that are in the sums, from the first
    change: float = 0.0  # sum of (W' - W)^2
    size: float = 0.0  # sum of W^2

    def reader(self, base: ReadRows, merged: ReadRows) -> ReadRows:
        """A reader of merged rows that adds to the sums the rows that follow those already in them."""

        def read(rows: RowIndex) -> Float32:
            after = merged(rows)
            if isinstance(rows, slice) and rows.start == self.rows:
                before = base(rows)
                self.change += float(np.square(after - before, dtype=np.float64).sum())
                self.size += float(np.square(before, dtype=np.float64).sum())
                self.rows += len(before)
            return after

        return read

    @property
    def value(self) -> float:
        """The relative change."""
        return self.change**0.5 / max(self.size**0.5, 1e-30)
