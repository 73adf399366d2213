"""Hidden states between two stages: in a file of the scratch folder, in the order of the batches."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from embedpack.errors import CapacityError
from embedpack_export.stages.staged_run import HiddenFile, StagedRun


def test_states_of_any_shapes_are_read_as_they_were_written(tmp_path: Path) -> None:
    batches = [np.random.default_rng(row).standard_normal((row + 1, 3, 4), np.float32) for row in range(3)]
    run = StagedRun([{"input_ids": np.zeros(row)} for row in range(3)])
    assert [before for _, before in run.batches()] == [None] * 3
    for factor in (1, 2):
        after = HiddenFile(tmp_path)
        for states in batches:
            after.append(states[..., ::-1] * factor)
        run.replace_states(after)
        for expected, (feeds, found) in zip(batches, run.batches(), strict=True):
            assert len(feeds["input_ids"]) == len(expected) - 1
            assert found is not None
            np.testing.assert_array_equal(found, expected[..., ::-1] * factor)
        assert len(list(tmp_path.iterdir())) == 1
    run.replace_states(None)
    assert list(tmp_path.iterdir()) == []


def test_the_memory_of_one_batch_is_enough(tmp_path: Path) -> None:
    states = np.ones((16, 64, 64), np.float32)
    file = HiddenFile(tmp_path)
    tracemalloc.start()
    try:
        for _ in range(20):
            file.append(states)
        assert sum(float(batch.sum()) for batch in file) == 20 * states.size
        assert tracemalloc.get_traced_memory()[1] < 4 * states.nbytes
    finally:
        tracemalloc.stop()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = HiddenFile(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CapacityError, match="the disk is full"):
        file.append(np.ones((1, 1, 1), np.float32))
