"""Multi-vectors of a single-vector model from the projector in its adapters' file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedpack import CheckpointError, Embedder, InputError
from embedpack.pack.manifest import MultiVectors
from embedpack.pack.strict import AdapterMode
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.torch.text_model import TextModel
from tests.helpers.exports import calibration_file, distance, edit_tensors
from tests.helpers.peft_oracle import save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.token_projector import BASE, SIZE, TASKS, save_tasks

TEXTS = ["how do i reset the router?", "a", "the cat sleeps on the warm roof, while the rain is blue"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("headed") / "checkpoint")


def settings_for(checkpoint: Path, folder: Path, **adapters: Path) -> ExportSettings:
    return ExportSettings(
        checkpoint=checkpoint,
        output=folder / "pack",
        adapters=adapters,
        adapter_modes=("merged", "switchable"),
        calibrate=calibration_file(folder),
    )


def both(adapter: Path) -> dict[str, Path]:
    return dict.fromkeys(TASKS, adapter)


@pytest.mark.parametrize("mode", ["merged", "switchable"])
def test_token_vectors_equal_the_reference(checkpoint: Path, tmp_path: Path, mode: AdapterMode) -> None:
    settings = settings_for(checkpoint, tmp_path, **both(save_tasks(checkpoint, tmp_path / "adapters")))
    manifest = export(settings)
    assert manifest.multi == MultiVectors(dimensions=SIZE, truncate_dims=(SIZE,))
    plan = make_plan(settings)
    for task in TASKS:
        reference = TextModel.load(plan, task)
        for weights, tolerance in (("fp32", 1e-6), ("int8", 0.01)):
            model = Embedder(settings.output, task=task, weights=weights, adapters=mode)
            found = model.encode_multi(TEXTS, prompt_name="query").decode()
            expected = reference.encode_multi(TEXTS, model.prompts["query"])
            for one, other in zip(found, expected, strict=True):
                assert distance(one, other) <= tolerance
            single = model.encode(TEXTS, prompt_name="query").decode()
            assert distance(single, reference.encode(TEXTS, model.prompts["query"])) <= tolerance


def test_reference_is_the_projector_with_its_lora_on_the_adapted_states(checkpoint: Path, tmp_path: Path) -> None:
    plan = make_plan(settings_for(checkpoint, tmp_path, **both(save_tasks(checkpoint, tmp_path / "adapters"))))
    tensors = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    reference = TextModel.load(plan, "code")
    lora = "base_model.model.multi_vector_projector.lora_{}.code.weight"
    # Rank 4 and alpha 12 of `save_adapter`.
    matrix = tensors[f"{BASE}.weight"] + 3 * tensors[lora.format("B")] @ tensors[lora.format("A")]
    ids = plan.processor.process(plan.processor.items(["the cat"]), "").pop().ids
    with torch.inference_mode():
        expected = reference._hidden_states(ids[None])[0] @ matrix.T + tensors[f"{BASE}.bias"]
    assert distance(reference.encode_multi(["the cat"])[0], expected.numpy()) <= 1e-6


def test_without_a_projector_the_reference_has_no_multi_vectors(checkpoint: Path, tmp_path: Path) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter")
    plan = make_plan(settings_for(checkpoint, tmp_path, retrieval=adapter))
    with pytest.raises(InputError, match="no head for multi-vectors"):
        TextModel.load(plan, "retrieval").encode_multi(TEXTS)


def test_projectors_of_two_trainings_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    one = save_tasks(checkpoint, tmp_path / "one")
    other = save_tasks(checkpoint, tmp_path / "other", projector_seed=6)
    with pytest.raises(
        CheckpointError, match=r"multi_vector_projector.(weight|bias) of .* differ: all tasks of a pack share"
    ):
        make_plan(settings_for(checkpoint, tmp_path, retrieval=one, code=other))


def test_a_task_without_the_projector_of_the_others_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    bare = save_adapter(checkpoint, tmp_path / "bare")
    headed = save_tasks(checkpoint, tmp_path / "headed")
    with pytest.raises(CheckpointError, match=r"the adapter of 'code' brings .*, that of 'retrieval' no projector"):
        make_plan(settings_for(checkpoint, tmp_path, retrieval=bare, code=headed))


def test_half_a_projector_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = save_tasks(checkpoint, tmp_path / "adapters")
    edit_tensors(folder / "adapter_model.safetensors", lambda tensors: tensors.pop(f"{BASE}.bias"))
    with pytest.raises(CheckpointError, match=r"multi_vector_projector.bias is missing"):
        make_plan(settings_for(checkpoint, tmp_path, **both(folder)))


def test_a_projector_of_another_width_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = save_tasks(checkpoint, tmp_path / "adapters")

    def narrow(tensors: dict[str, Any]) -> None:
        tensors[f"{BASE}.weight"] = np.ascontiguousarray(tensors[f"{BASE}.weight"][:, :-1])

    edit_tensors(folder / "adapter_model.safetensors", narrow)
    settings = settings_for(checkpoint, tmp_path, **both(folder))
    with pytest.raises(CheckpointError, match=r"multi_vector_projector"):
        export(settings)
    assert not settings.output.exists()
