"""Multi-vectors of a single-vector model from the projector in its adapters' file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedpack import CheckpointError, Embedder, InputError, MultiEmbeddings, maxsim
from embedpack.cli.main import main
from embedpack.engine.session import GraphSession
from embedpack.errors import OptionError
from embedpack.host.onnxruntime import ort
from embedpack.pack.manifest import MultiVectors
from embedpack.pack.strict import AdapterMode
from embedpack.vectors.codes import DTYPES, PRECISIONS, Precision
from embedpack_export.families.heads import TokenHead
from embedpack_export.pipeline import export
from embedpack_export.planning import token_head
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.torch.text_model import TextModel
from tests.helpers.exports import calibration_file, distance, edit_tensors
from tests.helpers.onnx_probe import run_model
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


def test_a_graph_computes_as_many_token_vectors_as_its_limit(checkpoint: Path, tmp_path: Path) -> None:
    settings = settings_for(checkpoint, tmp_path, **both(save_tasks(checkpoint, tmp_path / "adapters")))
    export(replace(settings, adapter_modes=("switchable",), weights=("int8",), reference="fp32 graph"))
    (graph,) = settings.output.glob("*-int8.onnx")
    ids = np.arange(10, 22, dtype=np.int64).reshape(2, 6)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    names = [output.name for output in ort.InferenceSession(graph).get_outputs()]
    whole = run_model(str(graph), names, feeds)
    short = run_model(str(graph), names, feeds | {"token_limit": np.array([2], np.int64)})
    assert any(name.startswith("token_embeddings") for name in names)
    for name, all_tokens, first in zip(names, whole, short, strict=True):
        np.testing.assert_array_equal(first, all_tokens[:, :2] if name.startswith("token") else all_tokens)
    session = GraphSession(graph, 1)
    (single, tokens) = session.run(["sentence_embedding", "token_embeddings"], feeds)
    np.testing.assert_array_equal(session.run(["sentence_embedding"], feeds)[0], single)
    assert tokens.shape[1] == 6


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


@pytest.fixture
def truncatable(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pack of a model whose multi-vectors were trained for truncation to 8 dimensions."""
    monkeypatch.setattr(token_head, "TokenHead", lambda layers: TokenHead(layers, (8,)))
    settings = settings_for(checkpoint, tmp_path, **both(save_tasks(checkpoint, tmp_path / "adapters")))
    manifest = export(replace(settings, weights=("fp32",), reference="fp32 graph"))
    assert manifest.multi == MultiVectors(dimensions=SIZE, truncate_dims=(8, SIZE))
    return settings.output


def test_multi_vectors_are_truncated_where_the_model_was_trained_for_it(truncatable: Path) -> None:
    model = Embedder(truncatable, task="code", adapters="merged")
    for precision in PRECISIONS:
        for factor in (1, 2):
            # float16 is rounded once, after truncation.
            stored: Precision = "float32" if precision == "float16" else precision
            whole = model.encode_multi(TEXTS, precision=stored, pool_factor=factor)
            cut = model.encode_multi(TEXTS, precision=precision, pool_factor=factor, truncate_dim=8)
            np.testing.assert_array_equal(cut.codes, whole.truncate(8).codes.astype(DTYPES[precision]))
            assert cut.dimensions == 8
    floats = model.encode_multi(TEXTS, truncate_dim=8)
    np.testing.assert_allclose(np.linalg.norm(floats.codes, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(maxsim(floats, floats).diagonal(), floats.counts, rtol=1e-5)
    with pytest.raises(OptionError, match="unknown truncate_dim 4; known: 8, 16"):
        model.encode_multi(TEXTS, truncate_dim=4)


def test_the_command_line_truncates_multi_vectors(truncatable: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    out = tmp_path / "vectors.npz"
    options = ["--task", "code", "--adapters", "merged", "--multi", "--truncate-dim", "8", "--precision", "binary"]
    assert main(["embed", str(truncatable), str(tmp_path / "texts.txt"), *options, "-o", str(out)]) == 0
    assert MultiEmbeddings.load(out).dimensions == 8


def test_truncation_is_refused_where_the_model_was_not_trained_for_it(checkpoint: Path, tmp_path: Path) -> None:
    settings = settings_for(checkpoint, tmp_path, **both(save_tasks(checkpoint, tmp_path / "adapters")))
    export(replace(settings, weights=("fp32",), reference="fp32 graph", adapter_modes=("merged",)))
    with pytest.raises(OptionError, match="truncate_dim is 8; the multi-vectors of this model were not trained for"):
        Embedder(settings.output, task="code").encode_multi(TEXTS, truncate_dim=8)
