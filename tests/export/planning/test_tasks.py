"""Tasks of an export: all adapters unless some are named, and names that no adapter has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.exports import (
    query_update,
    write_adapter,
)
from tests.helpers.plans import plan, refuse
from tests.helpers.tiny_checkpoint import make_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


# --- which tasks


def two_adapters(checkpoint: Path) -> dict[str, Path]:
    return {task: write_adapter(checkpoint.parent / task, query_update()) for task in ("code", "retrieval")}


def test_all_adapters_are_tasks_unless_some_are_asked_for(checkpoint: Path) -> None:
    adapters = two_adapters(checkpoint)
    assert list(plan(checkpoint, adapters=adapters).tasks) == ["code", "retrieval"]
    assert list(plan(checkpoint, adapters=adapters, tasks=("retrieval",)).tasks) == ["retrieval"]


def test_a_task_without_an_adapter_of_that_name(checkpoint: Path) -> None:
    adapters = two_adapters(checkpoint)
    message = "unknown task 'retreival'; known: code, retrieval; did you mean 'retrieval'?"
    refuse(checkpoint, message, adapters=adapters, tasks=("code", "retreival"))


def test_the_task_of_a_checkpoint_without_adapters_may_be_named(checkpoint: Path) -> None:
    assert list(plan(checkpoint).tasks) == ["default"]
    found = plan(checkpoint, tasks=("retrieval",)).tasks["retrieval"]
    assert found.adapter is None
    assert found.prompts == {"query": "query: ", "passage": "passage: "}


def test_a_checkpoint_without_adapters_is_one_task(checkpoint: Path) -> None:
    message = "tasks a, b: the checkpoint has no adapters, so it is one task; name only that"
    refuse(checkpoint, message, tasks=("a", "b"))


def test_switchable_adapters_of_a_checkpoint_that_has_none(checkpoint: Path) -> None:
    message = "switchable adapters were asked for, but the checkpoint has none; export it merged"
    refuse(checkpoint, message, adapter_modes=("switchable",))


def test_images_of_a_model_that_reads_texts(checkpoint: Path) -> None:
    refuse(checkpoint, "--modality text+image: this model reads texts only", modality="text+image")
    assert plan(checkpoint, modality="text").model.vision is None


# --- a task without an adapter


def test_a_task_without_an_adapter_stands_beside_the_others(checkpoint: Path) -> None:
    adapters = two_adapters(checkpoint)
    tasks = plan(checkpoint, adapters=adapters, base_task="general").tasks
    assert {task: found.adapter is None for task, found in tasks.items()} == {
        "code": False,
        "retrieval": False,
        "general": True,
    }
    assert tasks["general"].prompts == {"query": "query: ", "passage": "passage: "}
    alone = plan(checkpoint, adapters=adapters, base_task="general", tasks=("general", "code")).tasks
    assert list(alone) == ["code", "general"]


def test_a_task_with_an_adapter_is_none_without(checkpoint: Path) -> None:
    message = "task 'code': it has an adapter; give the task without an adapter another name"
    refuse(checkpoint, message, adapters=two_adapters(checkpoint), base_task="code")


def test_without_adapters_the_base_task_is_the_only_one(checkpoint: Path) -> None:
    assert list(plan(checkpoint, base_task="general").tasks) == ["general"]
    assert list(plan(checkpoint, base_task="general", tasks=("general",)).tasks) == ["general"]
    message = "tasks code, general: the checkpoint has no adapters, so it is one task; name only that"
    refuse(checkpoint, message, base_task="general", tasks=("code",))
