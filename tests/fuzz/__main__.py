"""Command line of the fuzzers: makes tries, prints failures, and writes the table of docs/security.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.fuzzers import FUZZERS
from tests.fuzz.outcome import FAILURES, Case, Result
from tests.fuzz.runner import run_cases
from tests.fuzz.table import Run, write_results
from tests.fuzz.worker import Limits

EXAMPLES = """examples:
  python -m tests.fuzz                          all tries, half an hour on two cores; writes docs/security.md
  python -m tests.fuzz --only graphs --tries 50
  python -m tests.fuzz --only graphs --case 17  one try, with its traceback"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzzers; 1 if a try crashed, hung or was wrong."""
    parser = argparse.ArgumentParser("tests.fuzz", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--only", choices=FUZZERS, help="one fuzzer; the results are not written")
    parser.add_argument("--tries", type=int, help="number of tries of each fuzzer; the results are not written")
    parser.add_argument("--case", type=int, help="number of one try")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices (default: 0)")
    parser.add_argument("--processes", type=int, default=2, help="number of processes (default: 2)")
    options = parser.parse_args(arguments)
    names = list(FUZZERS) if options.only is None else [options.only]
    if options.case is not None:
        return one_case(Case(names[0], options.case, options.seed))
    start = time.monotonic()
    results = []
    for name in names:
        results += run_fuzzer(name, options)
    run = Run.of(results, options.seed, time.monotonic() - start)
    print("\n".join(run.table()))
    if options.only is None and options.tries is None:
        write_results(run)
    return 1 if any(result.outcome in FAILURES for result in results) else 0


def run_fuzzer(name: str, options: argparse.Namespace) -> list[Result]:
    """Make all tries of a fuzzer, and print its failures."""
    tries = FUZZERS[name].tries if options.tries is None else options.tries
    results = []
    cases = [Case(name, number, options.seed) for number in range(tries)]
    for result in run_cases(FUZZERS, cases, Limits(), options.processes):
        results.append(result)
        if result.outcome in FAILURES:
            print(f"{name} {result.case.number}: {result.outcome}: {result.detail[:500]!r}", flush=True)
    print(f"{name}: {tries} tries", file=sys.stderr, flush=True)
    return results


def one_case(case: Case) -> int:
    """Make one try in this process, and print its outcome and traceback."""
    with tempfile.TemporaryDirectory() as folder:
        attempt = FUZZERS[case.fuzzer].prepare(Path(folder))
        try:
            attempt(case.random())
        except BaseException:  # panics of Rust are no Exception
            traceback.print_exc()
            return 1
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
