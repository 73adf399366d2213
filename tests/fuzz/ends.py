"""Tries that end in every way, for the test of the engine; new processes import them by name."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from embedpack.errors import InputError
from tests.fuzz.outcome import Attempt, Outcome, check

MEGABYTE = 1_000_000


def accept(rng: random.Random) -> None:
    rng.random()


def refuse(rng: random.Random) -> None:
    raise InputError("not this; pass another")


def refuse_without_a_message(rng: random.Random) -> None:
    raise InputError(" ")


def raise_another(rng: random.Random) -> None:
    raise KeyError("x")


def panic(rng: random.Random) -> None:
    raise BaseException("a panic")


def be_wrong(rng: random.Random) -> None:
    check(False, "not a unit vector")


def abort(rng: random.Random) -> None:
    os.kill(os.getpid(), signal.SIGABRT)


def compute_forever(rng: random.Random) -> None:
    while True:
        pass


def wait_forever(rng: random.Random) -> None:
    time.sleep(600)


def allocate(rng: random.Random) -> None:
    bytes(rng.randbytes(1)) * (600 * MEGABYTE)


ENDS: dict[str, tuple[Attempt, Outcome]] = {
    "accept": (accept, "ok"),
    "refuse": (refuse, "refused"),
    "refuse_without_a_message": (refuse_without_a_message, "wrong"),
    "raise_another": (raise_another, "crash"),
    "panic": (panic, "crash"),
    "be_wrong": (be_wrong, "wrong"),
    "abort": (abort, "crash"),
    "compute_forever": (compute_forever, "hang"),
    "allocate": (allocate, "hang"),
}


def given(attempt: Attempt, folder: Path) -> Attempt:
    """A fuzzer's preparation whose tries are all this one."""
    assert folder.is_dir()
    return attempt


def fail_to_prepare(folder: Path) -> Attempt:
    raise KeyError("no files")
