"""Hamming distances: both kernels equal a count of bits, and the choice of the kernel."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import InputError
from embedpack.scoring.hamming import Kernel, hamming, kernel, with_numkong, with_numpy

Bits = npt.NDArray[np.uint8]

needs_numkong = pytest.mark.skipif(importlib.util.find_spec("numkong") is None, reason="numkong is not installed")
KERNELS = [with_numpy, pytest.param(with_numkong, marks=needs_numkong)]
# Of a byte, of every word, between words, of a vector register and more, of models.
WIDTHS = [1, 2, 3, 4, 6, 7, 8, 12, 16, 31, 32, 33, 48, 64, 65, 128, 256, 257]


@pytest.fixture(autouse=True)
def undecided() -> Iterator[None]:
    """Each test chooses the kernel anew, and restores the choice."""
    kernel.cache_clear()
    yield
    kernel.cache_clear()


def random_bits(rows: int, width: int, seed: int) -> Bits:
    return np.random.default_rng(seed).integers(0, 256, (rows, width), dtype=np.uint8)


def by_definition(queries: Bits, documents: Bits) -> npt.NDArray[np.int64]:
    differing: npt.NDArray[np.uint8] = np.unpackbits(queries, axis=1)[:, None] != np.unpackbits(documents, axis=1)[None]
    return differing.sum(axis=-1, dtype=np.int64)


@pytest.mark.parametrize("compute", KERNELS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width(compute: Kernel, width: int) -> None:
    for queries, documents in ((1, 1), (1, 70), (2, 3), (5, 67), (17, 64)):
        left, right = random_bits(queries, width, seed=1), random_bits(documents, width, seed=2)
        found = compute(left, right)
        assert found.dtype == np.uint32
        assert found.shape == (queries, documents)
        assert np.array_equal(found, by_definition(left, right))


@pytest.mark.parametrize("compute", KERNELS)
@pytest.mark.parametrize("queries", [1, 3])
def test_opposites_differ_in_every_bit(compute: Kernel, queries: int) -> None:
    # As wide as the widest vectors that Embeddings hold: no counter overflows.
    left, right = np.zeros((queries, 8192), np.uint8), np.full((9, 8192), 255, np.uint8)
    assert (compute(left, right) == 65_536).all()
    assert not compute(left, left).any()


@pytest.mark.parametrize("rows", [1, 2, 3, 9, 10, 11])
def test_numpy_takes_documents_in_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = random_bits(3, 24, seed=1), random_bits(10, 24, seed=2)
    monkeypatch.setattr("embedpack.scoring.hamming.BLOCK_BYTES", rows * 24)
    assert np.array_equal(with_numpy(left, right), by_definition(left, right))


@pytest.mark.parametrize("compute", KERNELS)
def test_any_layout_of_the_arrays(compute: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.scoring.hamming.kernel", lambda: compute)
    left, right = random_bits(6, 48, seed=1), random_bits(40, 48, seed=2)
    right.flags.writeable = False
    for queries, documents in (
        (left[:, :16], right[:, :16]),
        (left[::2], right[::-1]),
        (np.asfortranarray(left), np.asfortranarray(right)),
        # Rows that begin at no multiple of a word.
        (left.ravel()[3:99].reshape(4, 24), right.ravel()[5:245].reshape(10, 24)),
    ):
        assert np.array_equal(hamming(queries, documents), by_definition(queries, documents))


@pytest.mark.parametrize(("queries", "documents", "width"), [(0, 3, 8), (3, 0, 8), (0, 0, 8), (2, 3, 0)])
def test_nothing_differs_in_nothing(queries: int, documents: int, width: int) -> None:
    found = hamming(np.zeros((queries, width), np.uint8), np.ones((documents, width), np.uint8))
    assert found.dtype == np.uint32
    assert found.shape == (queries, documents)
    assert not found.any()


def test_what_is_no_array_of_packed_bits() -> None:
    bits = random_bits(2, 8, seed=0)
    wrong: Any
    for wrong, shape, dtype in ((bits[0], [8], "uint8"), (bits.view(np.int8), [2, 8], "int8")):
        for arguments in ((wrong, bits), (bits, wrong)):
            with pytest.raises(InputError) as caught:
                hamming(*arguments)
            message = f"packed bits are an array [n, width] of type uint8, not {shape} of type {dtype}; "
            message += "pass the `codes` of binary vectors"
            assert str(caught.value) == message


def test_rows_of_different_lengths() -> None:
    with pytest.raises(InputError) as caught:
        hamming(random_bits(1, 8, seed=0), random_bits(1, 16, seed=0))
    assert str(caught.value) == "queries have 8 bytes, documents 16; Hamming distances need codes of the same length"


def test_numpy_is_taken_without_numkong(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    # What Python leaves there for a module that must not be imported.
    monkeypatch.setitem(sys.modules, "numkong", None)
    with caplog.at_level(logging.DEBUG, "embedpack"):
        hamming(random_bits(1, 8, seed=1), random_bits(2, 8, seed=2))
        assert kernel() is with_numpy
    assert caplog.messages == ["Hamming distances by numpy; pip install 'embedpack[fast]' makes them faster"]


@needs_numkong
def test_numkong_is_taken_where_it_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "embedpack"):
        hamming(random_bits(1, 8, seed=1), random_bits(2, 8, seed=2))
        assert kernel() is with_numkong
    assert caplog.messages == ["Hamming distances by numkong"]
