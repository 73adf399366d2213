"""The engine counts every end of a try, and goes on with the next one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.fuzz.ends import ENDS, MEGABYTE, fail_to_prepare, given, wait_forever
from tests.fuzz.outcome import Case, Fuzzer, Result
from tests.fuzz.runner import run_cases
from tests.fuzz.table import BEGIN, DOCUMENT, END, Run, updated, write_results
from tests.fuzz.worker import Limits


def test_every_end_of_a_try_is_counted() -> None:
    fuzzers = {name: Fuzzer(name, 1, partial(given, attempt)) for name, (attempt, _) in ENDS.items()}
    cases = [Case(name, number, 0) for name in ENDS for number in range(2 if name == "accept" else 1)]
    limits = Limits(seconds=1, memory=400 * MEGABYTE)
    results = list(run_cases(fuzzers, cases, limits, processes=2))
    assert sorted(result.case.fuzzer for result in results) == sorted(case.fuzzer for case in cases)
    assert {result.case.fuzzer: result.outcome for result in results} == {name: end for name, (_, end) in ENDS.items()}


def test_a_try_that_waits_without_computing_is_ended() -> None:
    fuzzers = {"wait": Fuzzer("wait", 1, partial(given, wait_forever))}
    (result,) = run_cases(fuzzers, [Case("wait", 0, 0)], Limits(wait=1), processes=1)
    assert (result.outcome, result.detail) == ("hang", "SIGKILL")


def test_a_fuzzer_that_fails_itself_is_no_outcome() -> None:
    fuzzers = {"broken": Fuzzer("broken", 1, fail_to_prepare)}
    with pytest.raises(RuntimeError, match="the fuzzer 'broken' itself fails before try 0"):
        list(run_cases(fuzzers, [Case("broken", 0, 0)], Limits(), processes=1))


def test_a_case_gives_the_same_numbers_each_time() -> None:
    assert Case("a", 1, 0).random().random() == Case("a", 1, 0).random().random()
    assert len({Case(*case).random().random() for case in (("a", 1, 0), ("a", 2, 0), ("a", 1, 1), ("b", 1, 0))}) == 4


def test_the_table_counts_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [Result(Case("a", 0, 0), "ok"), Result(Case("a", 1, 0), "crash"), Result(Case("b", 0, 0), "ok")]
    run = Run.of(results, seed=0, seconds=1.2)
    assert run.table()[2:5] == ["| a | 2 | 1 | 0 | 1 | 0 | 0 |", "| b | 1 | 1 | 0 | 0 | 0 | 0 |",
                                "| all | 3 | 2 | 0 | 1 | 0 | 0 |"]  # fmt: skip
    assert updated(f"before\n{BEGIN}\nold\n{END}\nafter\n", run).splitlines()[1:3] == [BEGIN, run.table()[0]]
    monkeypatch.setattr("tests.fuzz.table.RESULTS", tmp_path / "results.json")
    monkeypatch.setattr("tests.fuzz.table.DOCUMENT", tmp_path / "security.md")
    (tmp_path / "security.md").write_text(f"{BEGIN}{END}")
    write_results(run)
    assert Run.read() == run
    assert (tmp_path / "security.md").read_text() == "\n".join([BEGIN, *run.table(), END])
    with pytest.raises(ValueError, match="are missing"):
        updated("no block", run)


def test_the_document_has_the_table_of_the_results_file() -> None:
    run = Run.read()
    assert updated(DOCUMENT.read_text("utf-8"), run) == DOCUMENT.read_text("utf-8")
    assert sum(sum(counts.values()) for counts in run.counts.values()) >= 10_000
