"""The reference model is transformers and PEFT alone; packs are close to it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from embedpack import CheckpointError, Embedder, InputError, MissingExtraError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.vectors.arrays import Float32
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.torch.text_model import TextModel
from embedpack_export.reference.torch.unmerged_adapter import UnmergedAdapter
from embedpack_export.sources import patterns
from tests.helpers.exports import query_update, write_adapter
from tests.helpers.peft_oracle import save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_families import families_of

FAMILIES = families_of("encoder")
TEXTS = [
    "how do i reset the router?",
    "a",
    "the cat sleeps on the warm roof, while the rain is blue",
    "list files in the folder larger than one",
    "find the old network; close the window " * 9,
    "[SEP] [PAD] x",
]
CALIBRATION = [
    "day of the week and name of the door",
    "how is the river system open to a window?",
    "print every label of the shelf : index, file, folder",
    "green house tree, fast new disk full",
    "sort the list; search close",
]
# Lowest cosine to the reference; the toy's 32 dimensions average rounding errors out less than a real model's.
LOWEST = {"fp32": 1 - 1e-6, "int8": 0.999, "int4": 0.99}


def join_tasks(folder: Path, adapters: Mapping[str, Path]) -> Path:
    """Several adapters in one file, the task behind `lora_A` as in jina-embeddings-v4."""
    folder.mkdir()
    tensors = {
        f"{name.removesuffix('.weight')}.{task}.weight": tensor
        for task, adapter in adapters.items()
        for name, tensor in load_file(adapter / "adapter_model.safetensors").items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = next(iter(adapters.values())) / "adapter_config.json"
    (folder / "adapter_config.json").write_text(config.read_text())
    return folder


@pytest.fixture
def few_texts(tmp_path: Path) -> Path:
    """Calibration texts, few because the toy has few words."""
    path = tmp_path / "calibration.jsonl"
    path.write_text("".join(json.dumps({"text": text, "kind": "query"}) + "\n" for text in CALIBRATION))
    return path


def plan_for(tmp_path: Path, checkpoint: Path, **adapters: Path) -> ExportPlan:
    return make_plan(ExportSettings(checkpoint=checkpoint, output=tmp_path / "unused", adapters=adapters))


def token_ids(plan: ExportPlan, text: str) -> npt.NDArray[np.int64]:
    return TextTokenizer(plan.tokenizer_json, plan.max_tokens).encode([text], "")[0].ids


def lowest_cosine(vectors: Float32, reference: Float32) -> float:
    exact, found = reference.astype(np.float64), vectors.astype(np.float64)
    return float(((exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)).min())


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_exported_variants_come_close_to_the_reference(tmp_path: Path, few_texts: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type)
    adapter = save_adapter(checkpoint, tmp_path / "adapter")
    settings = ExportSettings(
        checkpoint=checkpoint,
        output=tmp_path / "pack",
        adapters={"retrieval": adapter},
        weights=("fp32", "int8", "int4"),
        calibrate=few_texts,
    )
    export(settings)
    reference = TextModel.load(make_plan(settings), "retrieval")
    for weights, lowest in LOWEST.items():
        model = Embedder(tmp_path / "pack", weights=weights, threads=1)
        for prompt_name, prompt in model.prompts.items():
            vectors = model.encode(TEXTS, prompt_name=prompt_name).decode()
            assert lowest_cosine(vectors, reference.encode(TEXTS, prompt)) >= lowest, (weights, prompt_name)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="lora"),
        pytest.param({"use_dora": True}, id="dora"),
        pytest.param({"use_rslora": True, "rank_pattern": {"query": 2}, "alpha_pattern": {"value": 3}}, id="patterns"),
        pytest.param({"target_modules": ["query", "word_embeddings"]}, id="embedding"),
        pytest.param({"bias": "lora_only"}, id="biases"),
        pytest.param({"lora_bias": True}, id="lora_bias"),
    ],
)
def test_exporter_merges_what_peft_computes(tmp_path: Path, few_texts: Path, settings: dict[str, Any]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    adapter = save_adapter(checkpoint, tmp_path / "adapter", **settings)
    output = tmp_path / "pack"
    wanted = ExportSettings(
        checkpoint=checkpoint,
        output=output,
        adapters={"code": adapter},
        weights=("fp32",),
        calibrate=few_texts,
    )
    export(wanted)
    reference = TextModel.load(make_plan(wanted), "code").encode(TEXTS)
    assert lowest_cosine(Embedder(output, threads=1).encode(TEXTS).decode(), reference) >= LOWEST["fp32"]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_vectors_are_those_of_transformers(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type)
    plan = plan_for(tmp_path, checkpoint)
    vectors = TextModel.load(plan, "default").encode(["reset the router"], "query: ")
    ids = token_ids(plan, "query: reset the router")
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        mean = model(torch.from_numpy(ids)[None]).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(vectors[0], (mean / mean.norm()).numpy(), atol=1e-6)
    assert vectors.dtype == np.float32
    assert vectors.shape == (1, 32)


def test_task_is_chosen_from_a_file_of_several(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    alone = {
        task: save_adapter(checkpoint, tmp_path / task, seed=seed) for seed, task in enumerate(("code", "retrieval"))
    }
    joined = join_tasks(tmp_path / "joined", alone)
    together = plan_for(tmp_path, checkpoint, code=joined, retrieval=joined)
    vectors = {task: TextModel.load(together, task).encode(TEXTS) for task in alone}
    for task, folder in alone.items():
        single = TextModel.load(plan_for(tmp_path, checkpoint, **{task: folder}), task).encode(TEXTS)
        np.testing.assert_array_equal(vectors[task], single)
    assert lowest_cosine(vectors["code"], vectors["retrieval"]) < 0.999


def test_adapter_changes_the_vectors(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    adapter = save_adapter(checkpoint, tmp_path / "adapter")
    base = TextModel.load(plan_for(tmp_path, checkpoint), "default").encode(TEXTS)
    adapted = TextModel.load(plan_for(tmp_path, checkpoint, code=adapter), "code").encode(TEXTS)
    assert lowest_cosine(adapted, base) < 0.999


def test_wrapped_names_are_understood(tmp_path: Path) -> None:
    """An adapter trained inside BertForMaskedLM names its modules `bert.encoder…`."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    adapter = save_adapter(checkpoint, tmp_path / "adapter")
    expected = TextModel.load(plan_for(tmp_path, checkpoint, code=adapter), "code").encode(TEXTS)
    path = adapter / "adapter_model.safetensors"
    save_file({name.replace(".model.", ".model.bert.", 1): value for name, value in load_file(path).items()}, path)
    found = TextModel.load(plan_for(tmp_path, checkpoint, code=adapter), "code").encode(TEXTS)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("position", [0, 3])
def test_pooling_takes_the_stated_token(tmp_path: Path, position: int) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    settings = ExportSettings(
        checkpoint=checkpoint, output=tmp_path / "unused", pooling="last" if position else "cls", max_tokens=4
    )
    plan = make_plan(settings)
    vector = TextModel.load(plan, "default").encode(["the cat sleeps on the roof"])[0]
    ids = token_ids(plan, "the cat sleeps on the roof")
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        state = model(torch.from_numpy(ids)[None]).last_hidden_state[0, position].numpy()
    assert len(ids) == 4
    np.testing.assert_allclose(vector, state / np.linalg.norm(state), atol=1e-6)


def test_text_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    model = TextModel.load(plan_for(tmp_path, make_checkpoint(tmp_path / "checkpoint")), "default")
    together = model.encode(TEXTS)
    alone = np.concatenate([model.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_no_texts(tmp_path: Path) -> None:
    model = TextModel.load(plan_for(tmp_path, make_checkpoint(tmp_path / "checkpoint")), "default")
    with pytest.raises(InputError, match="no texts: the list is empty"):
        model.encode([])


def test_unknown_task(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, make_checkpoint(tmp_path / "checkpoint"))
    with pytest.raises(InputError, match="unknown task 'defualt'; known: default; did you mean 'default'"):
        TextModel.load(plan, "defualt")


def test_adapter_whose_keys_peft_names_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    plan = plan_for(tmp_path, checkpoint, code=save_adapter(checkpoint, tmp_path / "adapter"))
    monkeypatch.setattr("embedpack_export.reference.torch.unmerged_adapter.KEY_PREFIX", "base_model.")
    with pytest.raises(CheckpointError, match=r"the keys of the file are not those .*are both of one run"):
        TextModel.load(plan, "code")


def test_backbone_tensor_missing(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, path, {"format": "pt"})
    plan = plan_for(tmp_path, checkpoint)
    with pytest.raises(CheckpointError, match=r"no fitting weights for encoder\.layer\.1\.output\.dense\.weight"):
        TextModel.load(plan, "default")


@pytest.mark.parametrize("package", ["torch", "transformers", "peft"])
def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("text_model", "loading", "unmerged_adapter"):
        monkeypatch.delitem(sys.modules, f"embedpack_export.reference.torch.{module}")
    with pytest.raises(MissingExtraError, match=rf"needs '{package}'.*pip install 'embedpack\[reference\]'"):
        importlib.import_module("embedpack_export.reference.torch.text_model")


def test_regular_expressions_are_tried_on_the_names_of_the_file_before_peft_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "PROGRAM", patterns.PROGRAM.replace("(5, 5)", "(1, 1)"))
    tensors = {name.replace("encoder", "a" * 60): tensor for name, tensor in query_update().items()}
    adapter = write_adapter(tmp_path / "adapter", tensors, target_modules="(a+)+b")
    with pytest.raises(CheckpointError, match=r"the regular expression '\(a\+\)\+b' takes more than"):
        UnmergedAdapter(adapter, "any", place=str, unused=bool).add_to(torch.nn.Sequential())
