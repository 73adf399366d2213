"""python -m benchmarks modality-gap: recall by center and gap, on real vectors of texts with an offset."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.quality.modality_gap import CENTERS, OFFSETS, add_arguments, run, table
from embedpack.errors import InputError
from embedpack.vectors.codebook import LOW_BIT
from tests.helpers.evaluation_sets import write_retrieval
from tests.helpers.tiny_pack import TINY_PACK


def options(data: Path, *sets: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    chosen = [part for name in sets for part in ("--set", name)]
    named = parser.parse_args([str(TINY_PACK), "--data", str(data), *chosen])
    named.threads, named.seed = 1, 3
    return named


def test_a_center_for_each_gap_and_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.quality.modality_gap.IMAGES", (6,))
    for name in ("words-en", "words-de"):
        write_retrieval(tmp_path / name, documents=14)
    results = json.loads(json.dumps(run(options(tmp_path, "words-en", "words-de"))))
    rows = {(row["gap"], row["center"]): row["recall_at_10"] for row in results["rows"]}
    assert len(rows) == len(OFFSETS) * len(CENTERS)
    gaps = sorted({gap for gap, _ in rows})
    assert gaps[0] == 0
    assert 1 < gaps[-1] < 2**0.5 + 0.3
    for center in CENTERS:
        for recall in (rows[gaps[0], center], rows[gaps[-1], center]):
            assert all(0.5 < recall[side][name] <= 1 for side in ("images", "texts") for name in LOW_BIT)
    # Without a gap and a center, images and texts are the same vectors.
    assert rows[gaps[0], "none"]["images"] == rows[gaps[0], "none"]["texts"]
    assert "halfway" in table(results)


def test_two_sets_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--set names 1 sets; two are needed"):
        run(options(tmp_path, "words-en"))
