"""Cosines and their summaries, compared with values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedpack_export.metrics.cosines import row_cosines, summarise_by_label, summarise_cosines


def test_cosines_are_those_by_hand() -> None:
    found = row_cosines(np.array([[2, 0], [1, 1]], np.float32), np.array([[1, 0], [1, 0]], np.float32))
    assert found == pytest.approx([1, math.sqrt(0.5)])
    assert summarise_cosines(found).mean == pytest.approx((1 + math.sqrt(0.5)) / 2, abs=1e-7)
    assert summarise_by_label(found, ["en", "de"])["de"].min == pytest.approx(math.sqrt(0.5), abs=1e-7)
