"""The benchmark of long texts on a tiny pack."""

from __future__ import annotations

import argparse
import json

from benchmarks.host.long_texts import run, table
from tests.helpers.tiny_pack import TINY_PACK


def test_memory_and_time_by_length() -> None:
    options = argparse.Namespace(packs=[TINY_PACK], variant="default-fp32", tokens=[8, 30], repetitions=1, threads=1)
    results = json.loads(json.dumps(run(options)))
    (model,) = results["models"]
    assert list(model["lengths"]) == ["8", "30"]
    assert model["variant"] == "default-fp32"
    short, long = (model["lengths"][length]["planned_bytes"]["median"] for length in ("8", "30"))
    assert 0 < short < long
    assert "default-fp32" in table(results)
