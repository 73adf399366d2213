"""Codebooks from calibration vectors: choices, their reasons, and held-out vectors for every comparison."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import LOW_BIT, Codebook
from embedpack.vectors.codes import unit
from embedpack_export.quantization import codebook_fit as code_calibration
from embedpack_export.quantization.codebook_fit import (
    CENTER,
    MIN_VECTORS,
    NONE,
    ROTATION,
    CodebookFit,
    CodebookParts,
    FittedVectors,
    fit_codebook,
    neighbour_recall,
)


def vectors(count: int, dimensions: int = 32, *, offset: float = 0, decay: float = 1, seed: int = 0) -> Float32:
    """Unit vectors around a common offset, the last dimension with `decay` times the spread of the first."""
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(99).standard_normal(dimensions) * offset
    spread = np.geomspace(1, decay, dimensions)
    return unit((rng.standard_normal((count, dimensions)) * spread + common).astype(np.float32))


def fit(given: Float32, ends: Sequence[int] = (), *, parts: CodebookParts = ROTATION) -> CodebookFit:
    return fit_codebook(FittedVectors(given), ends or (given.shape[1],), parts=parts, seed=0)


def test_vectors_far_from_zero_are_centered() -> None:
    given = vectors(300, offset=2)
    found = fit(given)
    assert found.kept == ("center",)
    np.testing.assert_allclose(found.codebook.center, given.mean(axis=0), atol=1e-6)
    assert found.codebook.rotation == ()
    assert list(found.recall_at_10) == ["none", "center", "center+rotation"]
    assert all(tuple(shares) == LOW_BIT for shares in found.recall_at_10.values())
    assert found.recall_at_10["center"]["binary"] > found.recall_at_10["none"]["binary"] + 0.1


def test_the_center_of_vectors_around_zero_is_left_out() -> None:
    """The mean of each half is chance: here the opposite of the other's."""
    half = vectors(32, seed=3)
    found = fit(np.stack([half, -half], axis=1).reshape(64, -1), parts=CENTER)
    assert found.kept == ()
    assert not found.codebook.center.any()
    assert found.recall_at_10["center"]["binary"] < found.recall_at_10["none"]["binary"]


def test_dimensions_of_uneven_spread_are_rotated() -> None:
    given = vectors(600, offset=0.5, decay=0.02)
    found = fit(given)
    assert found.kept == ("center", "rotation")
    assert [block.shape for block in found.codebook.rotation] == [(32, 32)]
    turned = given.mean(axis=0) @ found.codebook.rotation[0].T
    np.testing.assert_allclose(found.codebook.center, turned, atol=1e-6)
    assert found.recall_at_10["center+rotation"]["binary"] > found.recall_at_10["center"]["binary"] + 0.05


def test_a_rotation_can_be_cut_where_vectors_can() -> None:
    found = fit(vectors(600, decay=0.02), (8, 32))
    assert [len(block) for block in found.codebook.rotation] == [8, 24]


def test_a_rotation_that_may_not_be_is_not_tried() -> None:
    found = fit(vectors(600, decay=0.02), parts=CENTER)
    assert found.codebook.rotation == ()
    assert list(found.recall_at_10) == ["none", "center"]


def test_plain_codes_have_no_center_and_their_recall_is_recorded() -> None:
    found = fit(vectors(300, offset=2), parts=NONE)
    assert found.kept == ()
    assert not found.codebook.center.any()
    assert list(found.recall_at_10) == ["none"]


@pytest.mark.parametrize(("gain", "kept"), [(0.011, ("center", "rotation")), (0.009, ("center",))])
def test_a_rotation_has_to_gain_more_than_one_standard_error(
    monkeypatch: pytest.MonkeyPatch, gain: float, kept: tuple[str, ...]
) -> None:
    """Differences of 100 vectors with a spread of 0.1 have a mean with a standard error of 0.01."""
    noise = np.tile([0.1, -0.1], 25) * (99 / 100) ** 0.5

    def shares(half: Float32, codebook: Codebook, precision: str) -> npt.NDArray[np.float64]:
        if codebook.rotation:
            return 0.6 + gain + noise
        return np.full(50, 0.6 if codebook.center.any() else 0.5)

    monkeypatch.setattr(code_calibration, "neighbour_recall", shares)
    assert fit(vectors(100, offset=1)).kept == kept


def test_a_center_that_gains_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_calibration, "neighbour_recall", lambda half, codebook, precision: np.full(len(half), 0.5))
    assert fit(vectors(100, offset=1)).kept == ()


def test_each_half_is_judged_with_the_codebook_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    given = vectors(100, offset=1)
    seen = []

    def shares(half: Float32, codebook: Codebook, precision: str) -> npt.NDArray[np.float64]:
        seen.append((half, codebook.center))
        return np.zeros(len(half))

    monkeypatch.setattr(code_calibration, "neighbour_recall", shares)
    fit(given, parts=CENTER)
    centered = [(half, center) for half, center in seen if center.any()]
    assert len(centered) == 2 * len(LOW_BIT)
    for half, center in centered:
        first = np.array_equal(half, given[::2])
        assert first or np.array_equal(half, given[1::2])
        np.testing.assert_allclose(center, given[1::2].mean(axis=0) if first else given[::2].mean(axis=0), atol=1e-6)


def test_too_few_vectors_give_plain_levels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="embedpack"):
        few, enough = fit(vectors(MIN_VECTORS - 1, offset=2)), fit(vectors(MIN_VECTORS, offset=2))
    assert caplog.messages[0] == "codes: no center, no rotation; 15 vectors are too few to test them"
    assert caplog.messages[1].startswith("codes: center kept; recall of the ten nearest neighbours: 4bit ")
    assert (few.kept, few.recall_at_10) == ((), {})
    assert not few.codebook.center.any()
    np.testing.assert_allclose(few.codebook.levels["binary"], [-0.79788 / 32**0.5, 0.79788 / 32**0.5], rtol=1e-4)
    assert enough.kept == ("center",)


def test_levels_fit_the_spread_around_the_center() -> None:
    """Check of the constants: no factor on all levels leaves a lower error."""
    given = vectors(2000, 64, offset=1)
    codebook = fit(given, parts=CENTER).codebook
    centered = given - codebook.center
    for precision in LOW_BIT:
        level = codebook.levels[precision][codebook.digits(given, precision)]
        assert float((centered * level).sum() / np.square(level).sum()) == pytest.approx(1, abs=0.02)


def test_many_vectors_are_taken_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_calibration, "MAX_VECTORS", 50)
    given = vectors(99, offset=1)
    found = fit(given)
    np.testing.assert_allclose(found.codebook.center, given[::2].mean(axis=0), atol=1e-6)


def test_equal_vectors_count_once() -> None:
    """All texts under one prompt begin with the same tokens, whose nearest others are a matter of rounding."""
    given = vectors(40, offset=1)
    repeated = np.concatenate([given, given[:1] + np.float32(1e-7), given[:1]])
    one, other = fit(given), fit(repeated)
    assert one.codebook.id == other.codebook.id
    assert one.recall_at_10 == other.recall_at_10
    assert fit(np.repeat(given[:5], 20, axis=0)).recall_at_10 == {}


def test_shares_are_those_of_a_search_by_hand() -> None:
    given = vectors(60, offset=1)
    codebook = fit(given).codebook
    for precision in LOW_BIT:
        decoded = codebook.rotate_back(unit(codebook.values(codebook.digits(given, precision), precision)))
        expected = []
        for row, query in enumerate(given):
            others = [index for index in range(60) if index != row]
            exact = sorted(others, key=lambda index: -float(query @ given[index]))[:10]
            found = sorted(others, key=lambda index: -float(query @ decoded[index]))[:10]
            expected.append(len(set(exact) & set(found)) / 10)
        np.testing.assert_allclose(neighbour_recall(given, codebook, precision), expected)


def test_few_vectors_are_asked_for_fewer_neighbours() -> None:
    given = vectors(9, offset=1)
    shares = neighbour_recall(given, fit(given).codebook, "4bit")
    assert set(shares) <= {0, 0.5, 1}


def test_the_same_vectors_give_the_same_codebook() -> None:
    given = vectors(100, offset=0.5, decay=0.02)
    assert fit(given).codebook.id == fit(given.copy()).codebook.id
