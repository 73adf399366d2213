"""Adapters that come with a checkpoint: in one file, in a folder for each task, or stacked in the checkpoint itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedpack.errors import CheckpointError, InputError
from embedpack_export.families import bert, families
from embedpack_export.families.model import Model
from embedpack_export.pipeline import export
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.sources.adapter import AdapterSource
from embedpack_export.sources.checkpoint import Checkpoint, read_checkpoint
from embedpack_export.sources.peft_folders import PeftFile, PeftFolders
from embedpack_export.sources.stacked_adapters import Stacked
from embedpack_export.sources.weights import Weights
from tests.helpers.exports import (
    KEY,
    Arrays,
    edit_tensors,
    exactly,
    query_update,
    quick,
    shapes_of,
    take_all,
    write_adapter,
)
from tests.helpers.peft_oracle import merged_by_peft, save_adapter
from tests.helpers.plans import plan
from tests.helpers.stacked_checkpoint import (
    ADAPTED,
    MARK,
    RANK,
    SCALE,
    TASKS,
    make_stacked,
    merged_copy,
    read_stacked,
    stacked_family,
)
from tests.helpers.tiny_checkpoint import make_checkpoint

__all__ = ["stacked_family"]
FILE = "model.safetensors"
FIRST = f"{ADAPTED[1]}{MARK}.0.lora_A"


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stacked(tmp_path_factory.mktemp("stacked") / "toy")


# --- stacked in the checkpoint


@pytest.mark.parametrize("task", [*TASKS, "base"])
@pytest.mark.usefixtures("stacked_family")
def test_each_slice_of_a_stacked_checkpoint_is_the_adapter_of_its_task(
    stacked: Path, tmp_path: Path, task: str
) -> None:
    source = read_model_source(stacked, adapters={})
    assert list(source.tasks) == [*TASKS, "base"]
    plain = merged_copy(stacked, None if task == "base" else task, tmp_path / "plain")
    expected = {name: tensor.float32() for name, tensor in read_checkpoint(plain).tensors.items()}
    weights = Weights(source.checkpoint, source.tasks[task].adapter, source.model.rules)
    found = take_all(weights, shapes_of(plain))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.usefixtures("stacked_family")
def test_the_files_of_a_stacked_checkpoint_are_recorded_once(stacked: Path) -> None:
    assert [name for name in plan(stacked).files if name.startswith("adapters/")] == []


def test_a_slice_is_a_view_of_the_file(stacked: Path) -> None:
    tensor = read_checkpoint(stacked).tensors[FIRST]
    for index in range(len(TASKS)):
        part = tensor.part(index)
        assert (part.name, part.shape, part.path) == (f"{FIRST}[{index}]", tensor.shape[1:], tensor.path)
        np.testing.assert_array_equal(part.raw(), tensor.raw()[index])
        np.testing.assert_array_equal(part.mapped(), tensor.raw()[index])
    for index in (-1, len(TASKS)):
        with pytest.raises(InputError, match=re.escape(f"{FIRST} of the shape [3, 3, 32] has no part {index}")):
            tensor.part(index)


def drop(name: str) -> Callable[[Arrays], object]:
    return lambda tensors: tensors.pop(name)


def change(name: str, values: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], object]:
    return lambda tensors: tensors.update({name: values(tensors[name])})


WRONG: dict[str, tuple[Callable[[Arrays], object], str]] = {
    "half of a pair": (
        drop(FIRST),
        f"{{file}}: {ADAPTED[1]}{MARK}.0.lora_B is half of an adapter, the other factor is missing; download the "
        "checkpoint again",
    ),
    "a slice too many": (
        change(FIRST, lambda values: np.concatenate([values, values[:1]])),
        f"{{file}}: {FIRST} has the shape [4, 3, 32], not [3, ., .] for the tasks query, passage, separation of "
        "config.json; are both of one model?",
    ),
    "no axis of tasks": (
        change(FIRST, lambda values: values[0]),
        f"{{file}}: {FIRST} has the shape [3, 32], not [3, ., .] for the tasks query, passage, separation of "
        "config.json; are both of one model?",
    ),
    "another rank": (
        change(FIRST, lambda values: np.repeat(values, 2, axis=1)),
        f"{{file}}: {FIRST}[0] [6, 32] and {ADAPTED[1]}{MARK}.0.lora_B[0] [32, 3] are no factors of rank 3, which "
        "config.json has; are both of one model?",
    ),
    "integers": (
        change(FIRST, lambda values: values.astype(np.int8)),
        f"{{file}}: {FIRST} is stored as I8; known: BF16, F16, F32, F64; use the checkpoint that was not quantized",
    ),
    "no adapters": (
        lambda tensors: [tensors.pop(name) for name in list(tensors) if ".0.lora_" in name],
        "{folder}: no tensor is named ....parametrizations.weight.0.lora_A; is it a checkpoint without adapters?",
    ),
}


@pytest.mark.parametrize(("edit", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.usefixtures("stacked_family")
def test_stacked_tensors_that_are_incomplete_or_too_many_are_refused(
    tmp_path: Path, edit: Callable[[Arrays], object], message: str
) -> None:
    folder = make_stacked(tmp_path / "toy")
    edit_tensors(folder / FILE, edit)
    with pytest.raises(CheckpointError, match=exactly(message.format(file=folder / FILE, folder=folder))):
        read_model_source(folder, adapters={})


@pytest.mark.parametrize(
    "extra", [f"{ADAPTED[1]}{MARK}.1.lora_A", f"{ADAPTED[1]}{MARK}.0.lora_C", "encoder.layer.0.other.lora_A"]
)
@pytest.mark.usefixtures("stacked_family")
def test_tensors_that_belong_to_no_stacked_pair_are_left_over(tmp_path: Path, extra: str) -> None:
    folder = make_stacked(tmp_path / "toy")
    edit_tensors(folder / FILE, lambda tensors: tensors.update({extra: np.ones((3, 3, 32), np.float32)}))
    message = f"{folder}: unused tensors: {extra}; is it another architecture?"
    with pytest.raises(CheckpointError, match=exactly(message)):
        export(quick(folder, tmp_path / "pack", weights=("fp32",)))


def test_a_stacked_task_that_the_checkpoint_lacks_is_refused(stacked: Path) -> None:
    source = Stacked(TASKS, RANK, SCALE, re.compile("_embeddings$"))
    with pytest.raises(CheckpointError, match="unknown task 'pasage'; known: query, passage, separation; did you mean"):
        source.read(read_checkpoint(stacked), "pasage")


def test_a_stacked_update_of_another_shape_than_its_module_is_refused(tmp_path: Path) -> None:
    folder = make_stacked(tmp_path / "toy")
    edit_tensors(folder / FILE, change(FIRST, lambda values: values[:, :, :-1].copy()))
    checkpoint = read_checkpoint(folder)
    model = read_stacked(checkpoint)
    assert model.adapters is not None
    weights = Weights(model.adapters.take(checkpoint), model.adapters.read(checkpoint, "query"), model.rules)
    message = (
        f"{folder / FILE}: {FIRST}[0] has the shape [3, 31], the model's matrix {ADAPTED[1]} needs [3, 32]; "
        "the adapter belongs to another model"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        weights.matrix(ADAPTED[1], (32, 32))


def test_slices_of_fused_layers_are_those_of_their_parts(tmp_path: Path) -> None:
    """Queries, keys and values in one stacked matrix, as in jina-embeddings-v3."""
    parts = [f"encoder.layer.0.attention.self.{name}" for name in ("query", "key", "value")]
    whole = "encoder.layer.0.attention.self.Wqkv"
    plain = make_checkpoint(tmp_path / "plain")
    fused = make_stacked(tmp_path / "toy", ())
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((len(TASKS), *shape)).astype(np.float32) for shape in ((RANK, 32), (96, RANK)))

    def fuse(tensors: Arrays) -> None:
        tensors[f"{whole}{MARK}.original"] = np.concatenate([tensors.pop(f"{part}.weight") for part in parts])
        tensors[f"{whole}.bias"] = np.concatenate([tensors.pop(f"{part}.bias") for part in parts])
        tensors |= {f"{whole}{MARK}.0.lora_A": a, f"{whole}{MARK}.0.lora_B": b}

    edit_tensors(fused / FILE, fuse)
    checkpoint = read_checkpoint(fused)
    model = read_stacked(checkpoint)
    names = ("attention.self.query", "attention.self.key", "attention.self.value")
    rules = replace(model.rules, fused={"attention.self.Wqkv": names})
    assert model.adapters is not None
    for index, task in enumerate(TASKS):
        weights = Weights(model.adapters.take(checkpoint), model.adapters.read(checkpoint, task), rules)
        shapes = shapes_of(plain)
        found = take_all(weights, shapes)
        change = SCALE * b[index].astype(np.float64) @ a[index]
        for name, rows in zip(parts, np.split(change, 3), strict=True):
            expected = read_checkpoint(plain).tensors[f"{name}.weight"].float32() + rows
            np.testing.assert_allclose(found[f"{name}.weight"], expected, rtol=2e-6, atol=2e-6)


# --- in PEFT's format


def peft_family(monkeypatch: pytest.MonkeyPatch, source: Callable[[Path], AdapterSource]) -> None:
    """Checkpoints of BERT have adapters in their folder `adapters`."""

    def read(checkpoint: Checkpoint) -> Model:
        return replace(bert.read(checkpoint), adapters=source(checkpoint.folder / "adapters"))

    monkeypatch.setitem(families(), "bert", replace(bert.FAMILY, read=read))


def test_adapters_in_folders_are_tasks_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "toy")
    for seed, task in enumerate(("matching", "code")):
        save_adapter(folder, folder / "adapters" / task, seed=seed)
    (folder / "adapters" / "notes").mkdir()
    peft_family(monkeypatch, PeftFolders)
    source = read_model_source(folder, adapters={})
    assert list(source.tasks) == ["code", "matching"]
    assert sorted(name for name in source.files if name.startswith("adapters/")) == [
        f"adapters/{task}/adapter_{name}"
        for task in ("code", "matching")
        for name in ("config.json", "model.safetensors")
    ]
    for task, task_plan in source.tasks.items():
        expected = merged_by_peft(folder, folder / "adapters" / task)
        weights = Weights(source.checkpoint, task_plan.adapter, source.model.rules)
        found = take_all(weights, {name: values.shape for name, values in expected.items()})
        for name, values in expected.items():
            assert np.linalg.norm(found[name] - values) <= 1e-6 * np.linalg.norm(values), name


def test_a_checkpoint_whose_folder_of_adapters_is_empty_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "toy")
    peft_family(monkeypatch, PeftFolders)
    message = (
        f"{folder / 'adapters'}: no folder in it has an adapter_config.json; download the adapters of the model again"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        read_model_source(folder, adapters={})


def test_a_file_of_other_tasks_than_the_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "toy")
    tensors = {f"{KEY}.lora_{part}.{task}.weight": np.ones((4, 4)) for part in "AB" for task in ("code", "retrieval")}
    write_adapter(folder / "adapters", tensors)
    for tasks, message in (
        (("code",), "{file}: has adapters of retrieval, config.json of code; are both of one model?"),
        (("code", "retrieval", "matching"), "{file}: unknown task 'matching'; known: code, retrieval"),
    ):
        with monkeypatch.context() as patch:
            peft_family(patch, lambda path, tasks=tasks: PeftFile(path, tasks))  # type: ignore[misc]
            expected = exactly(message.format(file=folder / "adapters" / "adapter_model.safetensors"))
            with pytest.raises(CheckpointError, match=expected):
                read_model_source(folder, adapters={})


@pytest.mark.parametrize("lost", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_of_a_task_that_lacks_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    folder = make_checkpoint(tmp_path / "toy")
    for task in ("code", "matching"):
        write_adapter(folder / "adapters" / task, query_update())
    (folder / "adapters" / "code" / lost).unlink()
    peft_family(monkeypatch, PeftFolders)
    with pytest.raises(CheckpointError, match=rf"adapters/code.*{re.escape(lost)}"):
        read_model_source(folder, adapters={})


def test_a_task_in_a_folder_too_deep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "toy")
    write_adapter(folder / "adapters" / "code", query_update())
    inner = write_adapter(folder / "adapters" / "matching" / "default", query_update())
    peft_family(monkeypatch, PeftFolders)
    message = f"{inner.parent}: no adapter_config.json; {inner} holds an adapter: pass that folder"
    with pytest.raises(CheckpointError, match=exactly(message)):
        read_model_source(folder, adapters={})


@pytest.mark.parametrize("inner", ["code", "run/code"])
def test_the_folder_of_an_adapter_below_the_one_that_was_passed_is_named(tmp_path: Path, inner: str) -> None:
    """PEFT saves an adapter that has a name in a folder of this name."""
    folder = make_checkpoint(tmp_path / "toy")
    save_adapter(folder, tmp_path / "adapters" / inner)
    message = (
        f"{tmp_path / 'adapters'}: no adapter_config.json; {tmp_path / 'adapters' / inner} holds an adapter: "
        "pass that folder"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        read_model_source(folder, adapters={"code": tmp_path / "adapters"})
