"""The soak of the server, on the tiny pack."""

from __future__ import annotations

import argparse

import pytest

from benchmarks.host import server_soak
from embedpack.errors import InputError
from tests.helpers.tiny_pack import TINY_PACK


def options(**changes: float) -> argparse.Namespace:
    values = {"pack": TINY_PACK, "variant": "default-fp32", "threads": 1, "seed": 1}
    return argparse.Namespace(**values, **({"minutes": 1 / 60, "rate": 100.0, "step": 0.1} | changes))


def test_it_counts_answers_and_memory() -> None:
    results = server_soak.run(options())
    assert results["statuses"] == {"200": 100}
    assert results["wrong"] == 0
    assert len(results["steps"]) == 10
    assert "statuses {'200': 100}, 0 wrong" in server_soak.table(results)


def test_growth_is_that_after_the_warm_up() -> None:
    assert server_soak.growth([1, 50, 100, 90, 104, 101, 100, 100, 100, 100]) == pytest.approx(0.04)


def test_few_steps_are_an_error() -> None:
    with pytest.raises(InputError, match=r"2 steps; at least 10 are needed"):
        server_soak.run(options(minutes=2.0, step=60.0))
