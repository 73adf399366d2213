"""A fixed share of the tries of every fuzzer: none may crash, hang or be wrong. `make fuzz` makes all of them."""

from __future__ import annotations

from tests.fuzz.fuzzers import FUZZERS
from tests.fuzz.outcome import FAILURES, Case
from tests.fuzz.runner import run_cases
from tests.fuzz.worker import Limits

# Tries of each fuzzer; those that take longer have fewer.
TRIES = dict.fromkeys(FUZZERS, 60) | {"PDFs": 6, "checkpoints": 20, "PEFT adapters": 20, "packs with images": 30}


def test_no_try_fails() -> None:
    cases = [Case(name, number, seed=0) for name in FUZZERS for number in range(TRIES[name])]
    results = list(run_cases(FUZZERS, cases, Limits(), processes=1))
    assert len(results) == len(cases)
    assert [result for result in results if result.outcome in FAILURES] == []
    # A fuzzer whose inputs are all refused, or all accepted, finds nothing.
    for name in FUZZERS:
        outcomes = {result.outcome for result in results if result.case.fuzzer == name}
        assert outcomes == {"ok", "refused"}, name
