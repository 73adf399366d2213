"""Non-inferiority test: its three outcomes, the number of queries that it needs, its minimum width."""

from __future__ import annotations

import math

import pytest

from embedpack_export.metrics.bootstrap import Interval
from embedpack_export.metrics.non_inferiority import non_inferiority


def test_loss_below_the_margin_is_non_inferior() -> None:
    test = non_inferiority(-0.05, Interval(-0.2, 0.1), [1000, 1000], margin=0.3)
    assert test.outcome == "non-inferior"
    assert (test.low, test.high, test.needed) == (-0.2, 0.1, None)
    assert str(test) == "non-inferior"


def test_loss_above_the_margin_is_inferior() -> None:
    test = non_inferiority(-1.0, Interval(-1.4, -0.6), [2000], margin=0.3)
    assert (test.outcome, str(test), test.needed) == ("inferior", "inferior", None)


def test_an_unresolved_difference_names_the_queries_it_needs() -> None:
    test = non_inferiority(-0.1, Interval(-0.5, 0.3), [1000], margin=0.3)
    assert test.outcome == "not resolvable"
    # Twice as far from the margin as there is room.
    assert test.needed == 4000
    assert str(test) == "not resolvable with 1,000 queries; about 4,000 are needed"
    assert non_inferiority(-0.5, Interval(-0.9, -0.1), [1000], margin=0.3).needed == 4000
    assert non_inferiority(-0.3, Interval(-0.5, -0.1), [1000], margin=0.3).needed is None


@pytest.mark.parametrize("difference", [0.0, 0.5, 5.0])
def test_few_queries_never_pass(difference: float) -> None:
    test = non_inferiority(difference, Interval(difference, difference), [50], margin=0.3)
    assert test.outcome == "not resolvable"
    assert test.low == pytest.approx(difference - 1.96 * 2 / math.sqrt(50))
    assert test.needed is not None
    assert (
        non_inferiority(difference, Interval(difference, difference), [test.needed], margin=0.3).outcome
        == "non-inferior"
    )


def test_sets_count_the_same_however_large() -> None:
    test = non_inferiority(0, Interval(0, 0), [400, 100], margin=0.3)
    assert test.high == pytest.approx(1.96 * 2 / 2 * math.sqrt(1 / 400 + 1 / 100))
