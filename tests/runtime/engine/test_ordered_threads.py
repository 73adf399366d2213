"""Parallel batches: the same vectors in the same order, no batch started after an error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder, InputError
from embedpack.engine.encoder import TOKEN_BUDGET
from embedpack.engine.ordered_threads import AHEAD, run_ordered
from embedpack.engine.session import GraphSession

TEXTS = [f"{'the cat and the dog ' * (count % 7 + 1)}{count}" for count in range(300)]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 50])
def test_results_are_in_order(workers: int, count: int) -> None:
    assert list(run_ordered([partial(int, number) for number in range(count)], workers)) == list(range(count))


def test_calls_go_on_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)
    assert sorted(run_ordered([both.wait, both.wait], 2)) == [0, 1]


def test_no_more_calls_are_taken_than_needed() -> None:
    taken = []

    def calls() -> Iterator[Callable[[], int]]:
        for number in range(100):
            taken.append(number)
            yield partial(int, number)

    found = run_ordered(calls(), 3)
    assert [next(found), next(found)] == [0, 1]
    assert len(taken) <= 1 + 3 + AHEAD
    found.close()
    assert len(taken) <= 1 + 3 + AHEAD


def test_an_error_is_that_of_the_first_call_and_ends_the_work() -> None:
    begun = []

    def call(number: int) -> int:
        begun.append(number)
        if number >= 2:
            raise InputError(f"call {number}")
        return number

    with pytest.raises(InputError, match=r"^call 2$"):
        list(run_ordered((partial(call, number) for number in range(100)), 2))
    assert len(begun) <= 2 + 3


def test_an_error_of_the_iterable_is_passed_on() -> None:
    def calls() -> Iterator[Callable[[], int]]:
        yield partial(int, 1)
        raise InputError("page 2 is damaged")

    with pytest.raises(InputError, match=r"^page 2 is damaged$"):
        list(run_ordered(calls(), 2))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Of each run of a graph: the threads of its session, and the name of the thread that called it."""
    found: list[tuple[int, str]] = []
    open_session, run = GraphSession.__init__, GraphSession.run

    def opened(self: Any, graph: Path, threads: int, **options: Any) -> None:
        open_session(self, graph, threads, **options)
        self.threads_of_runs = threads

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        found.append((self.threads_of_runs, threading.current_thread().name))
        return run(self, *arguments, **options)

    monkeypatch.setattr(GraphSession, "__init__", opened)
    monkeypatch.setattr(GraphSession, "run", noted)
    return found


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_vectors_do_not_depend_on_threads(tiny: Path, runs: list[tuple[int, str]], weights: str) -> None:
    one, three = (Embedder(tiny, weights=weights, threads=threads) for threads in (1, 3))
    alone = one.encode(TEXTS)
    assert {threads for threads, _ in runs} == {1}
    runs.clear()
    assert np.array_equal(three.encode(TEXTS).codes, alone.codes)
    assert {threads for threads, _ in runs} == {1}
    assert len(runs) > 3
    assert all(name.startswith("embedpack") for _, name in runs)


def test_a_few_batches_get_all_threads(tiny: Path, runs: list[tuple[int, str]]) -> None:
    model = Embedder(tiny, weights="int8", threads=3)
    model.encode("a cat")
    model.encode(["the cat and the dog " * 6] * (2 * TOKEN_BUDGET // 32))
    assert [threads for threads, _ in runs] == [3, 3, 3]


def test_no_second_copy_of_large_weights(
    tiny: Path, runs: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpack.engine.loading.MAX_COPIED_BYTES", 1000)
    Embedder(tiny, weights="int8", threads=2, prepared=False).encode(TEXTS)
    assert {threads for threads, _ in runs} == {2}


def test_long_texts_get_all_threads(tiny: Path, runs: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.engine.encoder.LONG_TOKENS", 20)
    model = Embedder(tiny, weights="int8", threads=2)
    texts = ["the cat and the dog " * 6] * 4 + ["cat"] * 200
    found = model.encode(texts)
    assert {threads for threads, _ in runs} == {2}
    assert np.allclose(found.codes[0], model.encode(texts[0]).codes[0], atol=1e-6)


@pytest.mark.parametrize(("threads", "side_by_side"), [(2, True), (5, False)])
def test_batches_side_by_side_hold_no_more_than_a_long_one(
    tiny: Path, runs: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch, threads: int, side_by_side: bool
) -> None:
    """Texts of 32 tokens, each a batch of its own."""
    monkeypatch.setattr("embedpack.engine.encoder.TOKEN_BUDGET", 8)
    monkeypatch.setattr("embedpack.engine.encoder.LONG_TOKENS", 100)
    Embedder(tiny, weights="int8", threads=threads, prepared=False).encode(["the cat and the dog " * 8] * 9)
    assert [found for found, _ in runs] == [1 if side_by_side else threads] * 9
