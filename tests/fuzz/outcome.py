"""A fuzzer, its tries, and the outcomes of a try."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from embedpack.errors import EmbedpackError

# ok: accepted, and its checks passed; refused: one EmbedpackError with a message; crash: another exception, or the end
# of the process; hang: more than the limit of time or memory; wrong: accepted, but a check failed.
Outcome = Literal["ok", "refused", "crash", "hang", "wrong"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
FAILURES: tuple[Outcome, ...] = ("crash", "hang", "wrong")

# Makes one input from random numbers, uses it, and checks the result.
Attempt = Callable[[random.Random], None]


class WrongError(Exception):
    """An input was accepted, and the result is not what it must be."""


@dataclass(frozen=True)
class Fuzzer:
    """An attack: `name` is its row in the table, `prepare` makes the function of one try in an empty folder."""

    name: str
    tries: int  # of a full run
    prepare: Callable[[Path], Attempt]


@dataclass(frozen=True)
class Case:
    """A try of a fuzzer; the same seed and number give the same input."""

    fuzzer: str
    number: int
    seed: int

    def random(self) -> random.Random:
        """Random numbers of this try alone."""
        return random.Random(f"{self.seed} {self.fuzzer} {self.number}")


@dataclass(frozen=True)
class Result:
    """The outcome of a try; `detail` has the message, or the cause of a failure."""

    case: Case
    outcome: Outcome
    detail: str = ""


def check(condition: bool, problem: str) -> None:
    """Raise WrongError unless a condition holds."""
    if not condition:
        raise WrongError(problem)


def outcome_of(case: Case, attempt: Attempt) -> Result:
    """Run one case and classify its end."""
    try:
        attempt(case.random())
    except EmbedpackError as refusal:
        return Result(case, "refused" if str(refusal).strip() else "wrong", str(refusal))
    except WrongError as problem:
        return Result(case, "wrong", str(problem))
    except BaseException as failure:  # panics of Rust are no Exception
        return Result(case, "crash", f"{type(failure).__name__}: {failure}")
    return Result(case, "ok")
