"""The benchmark of long texts on a tiny pack."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.host.long_texts import run, table
from embedpack_export.pipeline import export
from tests.helpers.exports import quick
from tests.helpers.tiny_checkpoint import make_checkpoint


def test_memory_and_time_by_length(tmp_path: Path) -> None:
    export(quick(make_checkpoint(tmp_path / "toy"), tmp_path / "pack", weights=("fp32",)))
    options = argparse.Namespace(packs=[tmp_path / "pack"], variant=None, tokens=[8, 30], repetitions=1, threads=1)
    results = json.loads(json.dumps(run(options)))
    (model,) = results["models"]
    assert list(model["lengths"]) == ["8", "30"]
    assert model["variant"] == "default-fp32"
    short, long = (model["lengths"][length]["planned_bytes"]["median"] for length in ("8", "30"))
    assert 0 < short < long
    assert "default-fp32" in table(results)
