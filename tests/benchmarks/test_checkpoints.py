"""Checkpoints of random weights have the layout of the published ones, and export."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.checkpoints.make_clip import ClipShape, clip_tensors, make_clip
from benchmarks.checkpoints.make_v3 import make_v3
from benchmarks.checkpoints.make_v5 import TASKS as V5_TASKS
from benchmarks.checkpoints.make_v5 import make_v5
from benchmarks.checkpoints.v3.layout import TASKS, V3Shape, random_tensors
from embedpack_export.sources.checkpoint import read_checkpoint
from tests.helpers.exports import tree
from tests.helpers.plans import plan


def test_the_real_size_of_v3_has_the_published_counts() -> None:
    tensors = list(random_tensors(V3Shape(), 0.25))
    assert (len(tensors), sum(math.prod(each.shape) for each in tensors)) == (492, 572_310_396)
    assert len({each.name for each in tensors}) == 492


def test_v3_has_adapters_of_its_tasks_and_the_same_bytes_for_a_seed(tmp_path: Path) -> None:
    first, again = (make_v3(tmp_path / name) for name in ("first", "again"))
    assert tree(first) == tree(again)
    planned = plan(first)
    assert (planned.family, list(planned.tasks)) == ("jina_embeddings_v3", [*TASKS, "base"])
    assert planned.max_tokens == 8194
    assert [name for task in planned.tasks.values() for name in task.prompts] == ["query", "passage"]


def test_the_real_size_of_clip_has_the_published_counts() -> None:
    sizes = {each.name: math.prod(each.shape) for each in clip_tensors(ClipShape())}
    of_vision = sum(size for name, size in sizes.items() if name.startswith("vision_model."))
    assert (sum(sizes.values()), of_vision) == (865_278_477, 304_382_912)


def test_clip_is_of_its_family_and_the_same_bytes_for_a_seed(tmp_path: Path) -> None:
    first, again = (make_clip(tmp_path / name) for name in ("first", "again"))
    assert tree(first) == tree(again)
    planned = plan(first)
    assert (planned.family, list(planned.tasks), planned.max_tokens) == ("jina_clip", ["retrieval"], 8194)


@pytest.mark.parametrize(("size", "parameters"), [("small", 4 * 15_730_944), ("nano", 4 * 9_438_720)])
def test_a_layer_of_v5_is_as_large_as_the_published_one(tmp_path: Path, size: str, parameters: int) -> None:
    """(596,049,920 - 151,936 x 1024 - 1024) / 28, and (211,766,016 - 128,256 x 768 - 768) / 12."""
    folder = make_v5(tmp_path / size, size)
    tensors = read_checkpoint(folder).tensors
    assert sum(math.prod(each.shape) for name, each in tensors.items() if name.startswith("layers.")) == parameters
    assert list(plan(folder).tasks) == list(V5_TASKS)
