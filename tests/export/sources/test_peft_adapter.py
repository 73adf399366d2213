"""Merged matrices against peft's own merge, and every adapter that must be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import write_safetensors
from embedpack_export.pipeline import export
from embedpack_export.sources.checkpoint import INDEX
from embedpack_export.sources.peft_adapter import read_adapter
from tests.helpers.exports import (
    KEY,
    QUERY,
    Arrays,
    edit_tensors,
    exactly,
    query_update,
    quick,
    read_tensors,
    shapes_of,
    take_all,
    weights_of,
    write_adapter,
)
from tests.helpers.peft_oracle import merged_by_peft, recast, save_adapter, save_with_head
from tests.helpers.tiny_checkpoint import make_checkpoint

TOLERANCE = 1e-6
FILE = "adapter_model.safetensors"

ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "alpha_pattern": {"alpha_pattern": {"value": 40, "layer.1.output.dense": 3}},
    "rank_pattern": {"rank_pattern": {"query": 7}, "alpha_pattern": {"query": 5}},
    "patterns of rsLoRA": {"use_rslora": True, "rank_pattern": {r"layer\.0\..*value": 2}},
    "DoRA": {"use_dora": True},
    "DoRA with ranks": {"use_dora": True, "use_rslora": True, "rank_pattern": {"value": 9}},
    "embedding": {"target_modules": ["word_embeddings", "query"]},
    "position embedding": {"target_modules": ["position_embeddings"]},
    "DoRA embedding": {"target_modules": ["word_embeddings", "key"], "use_dora": True},
    "lora_bias": {"lora_bias": True},
    "bias of LoRA layers": {"bias": "lora_only"},
    "modules_to_save": {"modules_to_save": ["LayerNorm", "intermediate.dense"]},
    "modules_to_save, embedding": {"modules_to_save": ["word_embeddings"]},
    "all linears": {"target_modules": "all-linear", "exclude_modules": ["pooler.dense"]},
    "one layer": {"layers_to_transform": [1]},
    "Gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "MiCA": {"init_lora_weights": "mica"},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("merge") / "toy")


def assert_merges_like_peft(
    checkpoint: Path, adapter: Path, *, task: str = "retrieval", judged: tuple[Path, Path] | None = None
) -> None:
    """`judged`: checkpoint and adapter in the form that peft can read, where it is not the same."""
    expected = merged_by_peft(*(judged or (checkpoint, adapter)))
    weights = weights_of(checkpoint, read_adapter(adapter, task))
    found = take_all(weights, {name: values.shape for name, values in expected.items()})
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        assert np.linalg.norm(found[name] - values) <= TOLERANCE * np.linalg.norm(values), name


@pytest.mark.parametrize("config", ADAPTERS.values(), ids=ADAPTERS)
def test_merge_equals_peft(checkpoint: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", **config)
    assert_merges_like_peft(checkpoint, adapter)


def test_all_biases_merge_and_that_of_the_unused_pooler_is_left(checkpoint: Path, tmp_path: Path) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", bias="all")
    assert "base_model.model.pooler.dense.bias" in read_tensors(adapter / FILE)
    assert_merges_like_peft(checkpoint, adapter)


def test_an_adapter_that_also_trained_the_unused_pooler_merges(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", target_modules="all-linear")
    assert f"{KEY}.lora_A.weight" in read_tensors(adapter / FILE)
    assert "base_model.model.pooler.dense.lora_A.weight" in read_tensors(adapter / FILE)
    with caplog.at_level("INFO", "embedpack"):
        assert_merges_like_peft(checkpoint, adapter)
    assert f"{adapter}: left out, because no embedding needs them: pooler.dense" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_adapters_merge_in_float32(checkpoint: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter", use_dora=True)
    recast(adapter / FILE, dtype)
    assert_merges_like_peft(checkpoint, adapter)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_checkpoints_merge_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    half = make_checkpoint(tmp_path / "half")
    recast(half / "model.safetensors", dtype)
    assert_merges_like_peft(half, save_adapter(half, tmp_path / "adapter"))


def test_float64_checkpoints_merge_in_float32(tmp_path: Path) -> None:
    double = make_checkpoint(tmp_path / "double")
    recast(double / "model.safetensors", torch.float64)
    assert_merges_like_peft(double, save_adapter(double, tmp_path / "adapter"))


def test_sharded_checkpoints_merge(checkpoint: Path, tmp_path: Path) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter")
    assert_merges_like_peft(shard(make_checkpoint(tmp_path / "sharded")), adapter)


def test_matrices_of_many_chunks_merge_like_those_of_one(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = ["word_embeddings", "query", "output.dense"]
    adapter = save_adapter(checkpoint, tmp_path / "adapter", target_modules=targets, use_dora=True)
    monkeypatch.setattr("embedpack_export.arrays.CHUNK_ROWS", 5)
    assert_merges_like_peft(checkpoint, adapter)


def test_prefixed_checkpoints_merge_and_their_pretraining_head_is_ignored(tmp_path: Path) -> None:
    whole = make_checkpoint(tmp_path / "whole")
    save_with_head(whole)
    names = read_tensors(whole / "model.safetensors")
    assert "bert.embeddings.word_embeddings.weight" in names
    assert any(name.startswith("cls.") for name in names)
    assert_merges_like_peft(whole, save_adapter(whole, tmp_path / "adapter"))


def test_adapters_of_a_prefixed_model_merge_into_the_bare_one(checkpoint: Path, tmp_path: Path) -> None:
    bare = save_adapter(checkpoint, tmp_path / "bare", use_dora=True, modules_to_save=["LayerNorm"])
    tensors = load_file(bare / FILE)
    prefixed = tmp_path / "prefixed"
    prefixed.mkdir()
    (prefixed / "adapter_config.json").write_text((bare / "adapter_config.json").read_text())
    renamed = {name.replace("base_model.model.", "base_model.model.bert."): value for name, value in tensors.items()}
    save_file(renamed, prefixed / FILE)
    assert_merges_like_peft(checkpoint, prefixed, judged=(checkpoint, bare))


def test_norms_under_their_names_of_tensorflow_days_merge(checkpoint: Path, tmp_path: Path) -> None:
    old = make_checkpoint(tmp_path / "old")

    def rename(tensors: Arrays) -> None:
        for new, before in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
            for name in [name for name in tensors if name.endswith(new)]:
                tensors[name.replace(new, before)] = tensors.pop(name)

    edit_tensors(old / "model.safetensors", rename)
    adapter = save_adapter(checkpoint, tmp_path / "adapter", modules_to_save=["embeddings.LayerNorm"])
    assert_merges_like_peft(old, adapter, judged=(checkpoint, adapter))


@pytest.mark.parametrize("config", [{}, {"use_dora": True, "target_modules": ["word_embeddings", "query"]}])
def test_several_tasks_in_one_file_merge_one_by_one(checkpoint: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    """jina-embeddings-v4's layout: the task stands behind lora_A and its like."""
    single = {
        task: save_adapter(checkpoint, tmp_path / task, seed=seed, **config)
        for seed, task in enumerate(("code", "retrieval"))
    }
    common = join_tasks(tmp_path / "common", single)
    for task, folder in single.items():
        assert_merges_like_peft(checkpoint, common, task=task, judged=(checkpoint, folder))


def test_an_ordinary_adapter_serves_any_task(checkpoint: Path, tmp_path: Path) -> None:
    adapter = save_adapter(checkpoint, tmp_path / "adapter")
    assert read_adapter(adapter, "code").updates.keys() == read_adapter(adapter, "anything").updates.keys()


def test_without_an_adapter_the_weights_are_those_of_the_file(checkpoint: Path) -> None:
    weights = weights_of(checkpoint)
    found = take_all(weights, shapes_of(checkpoint))
    for name, values in read_tensors(checkpoint / "model.safetensors").items():
        np.testing.assert_array_equal(found[name], values)
    assert weights.adapter_record() is None


def test_the_record_counts_merged_tensors_and_their_largest_change(checkpoint: Path, tmp_path: Path) -> None:
    tensors = query_update()
    weights = weights_of(checkpoint, read_adapter(write_adapter(tmp_path / "adapter", tensors), "any"))
    take_all(weights, shapes_of(checkpoint))
    record = weights.adapter_record()
    assert record is not None
    delta = 2 * tensors[f"{KEY}.lora_B.weight"] @ tensors[f"{KEY}.lora_A.weight"]
    base = read_tensors(checkpoint / "model.safetensors")[f"{QUERY}.weight"]
    assert record.modules == 1
    assert record.relative_change == pytest.approx(np.linalg.norm(delta) / np.linalg.norm(base), rel=1e-3)


def refuse(checkpoint: Path, adapter: Path, message: str, *, task: str = "any") -> None:
    """Reading or merging the adapter fails with this message."""
    with pytest.raises(CheckpointError, match=exactly(message)):
        take_all(weights_of(checkpoint, read_adapter(adapter, task)), shapes_of(checkpoint))


def test_an_adapter_of_a_wider_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(hidden=48))
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: {KEY}.lora_A.weight has the shape [4, 48], the model's matrix {QUERY} needs [4, 32]; "
        "the adapter belongs to another model",
    )


def test_a_magnitude_vector_of_another_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    tensors = {**query_update(), f"{KEY}.lora_magnitude_vector": np.ones(16, np.float32)}
    adapter = write_adapter(tmp_path / "adapter", tensors, use_dora=True)
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: {KEY}.lora_magnitude_vector has the shape [16], the model's matrix {QUERY} needs [32]; "
        "the adapter belongs to another model",
    )


def test_a_bias_of_lora_b_of_another_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    tensors = {**query_update(), f"{KEY}.lora_B.bias": np.ones(1, np.float32)}
    adapter = write_adapter(tmp_path / "adapter", tensors, lora_bias=True)
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: {KEY}.lora_B.bias has the shape [1], the model's matrix {QUERY} needs [32]; "
        "the adapter belongs to another model",
    )


def test_a_saved_module_of_another_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    norm = "base_model.model.embeddings.LayerNorm.weight"
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), norm: np.ones(48, np.float32)})
    refuse(checkpoint, adapter, f"{adapter / FILE}: {norm} has the shape [48], config.json needs [32]")


def test_an_embedding_of_a_resized_vocabulary_is_refused_with_the_remedy(checkpoint: Path, tmp_path: Path) -> None:
    table = "base_model.model.embeddings.word_embeddings.weight"
    rows = shapes_of(checkpoint)["embeddings.word_embeddings.weight"][0]
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), table: np.ones((rows + 2, 32), np.float32)})
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: {table} has the shape [{rows + 2}, 32], config.json needs [{rows}, 32]; if the vocabulary "
        "was resized for the training, save the resized model as well (resize_token_embeddings, save_pretrained) and "
        "export that one",
    )


def test_an_adapter_of_a_module_that_the_model_lacks_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    foreign = {name.replace("query", "q_proj"): value for name, value in query_update().items()}
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), **foreign})
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: the adapter changes encoder.layer.0.attention.self.q_proj, which this export of the model "
        f"does not have (key {KEY.replace('query', 'q_proj')}.lora_B.weight); is it an adapter for another model?",
    )


def test_a_saved_module_that_the_model_lacks_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    head = {"base_model.model.adapter_head.weight": np.ones((2, 32), np.float32)}
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), **head})
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: the adapter changes adapter_head.weight, which this export of the model does not have "
        "(key base_model.model.adapter_head.weight); is it an adapter for another model?",
    )


def test_heads_that_no_embedding_needs_are_left_out_by_name(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heads = {f"base_model.model.{name}.weight": np.ones((2, 32), np.float32) for name in ("classifier", "lm_head")}
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), **heads})
    with caplog.at_level("INFO", "embedpack"):
        take_all(weights_of(checkpoint, read_adapter(adapter, "any")), shapes_of(checkpoint))
    assert f"{adapter / FILE}: left out, because no embedding needs them: {', '.join(heads)}" in caplog.text
    alone = write_adapter(tmp_path / "alone", heads)
    refuse(
        checkpoint,
        alone,
        f"{alone / FILE}: changes nothing but heads (base_model.model.classifier.weight), which no embedding has; "
        "leave the adapter out",
    )


@pytest.mark.parametrize(
    "key",
    [
        f"{KEY}.ia3_l",
        f"{KEY}.lora_A.retrieval.more.weight",
        f"{KEY}.lora_C.weight",
        f"{KEY}.token_adapter.trainable_tokens_delta.more",
        f"{KEY}.oft_R.weight.scale",
        f"{QUERY}.lora_A.weight",
        "base_model.model.lora_A.weight",
    ],
)
def test_keys_that_are_not_understood_are_refused(checkpoint: Path, tmp_path: Path, key: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), key: np.ones((4, 32), np.float32)})
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: the key {key!r} is unknown; only LoRA and DoRA adapters can be merged",
    )


def test_an_unknown_task_is_refused_with_the_nearest_name(checkpoint: Path, tmp_path: Path) -> None:
    single = {task: write_adapter(tmp_path / task, query_update()) for task in ("code", "retrieval")}
    common = join_tasks(tmp_path / "common", single)
    refuse(
        checkpoint,
        common,
        f"{common / FILE}: unknown task 'retrival'; known: code, retrieval; did you mean 'retrieval'?",
        task="retrival",
    )


def test_a_rank_that_the_configuration_does_not_state_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(rank=4), r=8)
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: {QUERY} has rank 4, adapter_config.json has 8; are both from one training run?",
    )


MERGE_FIRST = "merge it with peft (merge_and_unload, save_pretrained) and export the merged model"


@pytest.mark.parametrize(
    ("kind", "config", "remedy"),
    [
        ("IA3", {}, MERGE_FIRST),
        ("ADALORA", {"r": 8}, MERGE_FIRST),
        ("OFT", {"r": 0}, MERGE_FIRST),
        ("LOHA", {"alpha": 8, "rank_pattern": {}}, MERGE_FIRST),
        ("PROMPT_TUNING", {"r": None}, "it changes no weights, so it cannot be merged; train a LoRA"),
        (None, {}, MERGE_FIRST),
        ([], {}, MERGE_FIRST),
    ],
)
def test_other_kinds_of_adapters_are_refused_before_their_fields_are_read(
    checkpoint: Path, tmp_path: Path, kind: object, config: dict[str, Any], remedy: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(), peft_type=kind, **config)
    message = f"{adapter / 'adapter_config.json'}: peft_type is {kind!r}; only LORA is read: {remedy}"
    refuse(checkpoint, adapter, message)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_initialisations_that_changed_the_backbone_are_refused(checkpoint: Path, tmp_path: Path, init: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(), init_lora_weights=init)
    refuse(
        checkpoint,
        adapter,
        f"{adapter / 'adapter_config.json'}: init_lora_weights is {init!r}; it also changed the backbone; save the "
        "adapter again with path_initial_model_for_weight_conversion, which makes it a plain LoRA",
    )


def test_unknown_settings_that_are_on_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(), a_setting_of_tomorrow="on")
    refuse(
        checkpoint,
        adapter,
        f"{adapter / 'adapter_config.json'}: unknown key 'a_setting_of_tomorrow' with the value 'on'; Remove it if "
        "vectors cannot depend on it, else report it",
    )


@pytest.mark.parametrize(
    ("part", "setting"), [("lora_magnitude_vector", "use_dora"), ("lora_B.bias", "lora_bias")], ids=str
)
@pytest.mark.parametrize("in_file", [True, False])
def test_a_file_and_a_configuration_that_disagree_are_refused(
    checkpoint: Path, tmp_path: Path, part: str, setting: str, in_file: bool
) -> None:
    tensors = {**query_update(), **({f"{KEY}.{part}": np.ones(32, np.float32)} if in_file else {})}
    adapter = write_adapter(tmp_path / "adapter", tensors, **{setting: not in_file})
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: {QUERY} has {'a' if in_file else 'no'} {part}, adapter_config.json has {setting} "
        f"{'false' if in_file else 'true'}; are both from one training run?",
    )


def test_settings_of_features_that_are_off_are_no_obstacle(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update(), use_qalora=False, a_setting_of_tomorrow=None)
    assert list(read_adapter(adapter, "any").updates) == [QUERY]


def test_an_adapter_of_zeros_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    zeros = {name: value * ("lora_A" in name) for name, value in query_update().items()}
    adapter = write_adapter(tmp_path / "adapter", zeros)
    refuse(checkpoint, adapter, f"{adapter}: the adapter changes nothing (all its updates are zero)")


def test_an_untrained_adapter_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Saved modules equal to the model's own do not count as a change either."""
    norm = "embeddings.LayerNorm.weight"
    own = read_tensors(checkpoint / "model.safetensors")[norm]
    adapter = write_adapter(tmp_path / "adapter", {f"base_model.model.{norm}": own})
    refuse(checkpoint, adapter, f"{adapter}: the adapter changes nothing (all its updates are zero)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"])
def test_values_that_are_not_finite_are_refused_with_the_tensors_name(
    checkpoint: Path, tmp_path: Path, part: str, value: float
) -> None:
    tensors = {**query_update(), f"{KEY}.lora_magnitude_vector": np.ones(32, np.float32)}
    tensors[f"{KEY}.{part}"].flat[3] = value
    adapter = write_adapter(tmp_path / "adapter", tensors, use_dora=True)
    refuse(
        checkpoint,
        adapter,
        f"{QUERY}.weight: merged weights are not finite in rows 0 to 31; "
        "the checkpoint or the adapter is damaged: download it again",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bias_that_is_not_finite_is_refused(checkpoint: Path, tmp_path: Path, value: float) -> None:
    bias = np.zeros(32, np.float32)
    bias[5] = value
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), f"{KEY}.base_layer.bias": bias})
    refuse(checkpoint, adapter, f"{QUERY}.bias: merged weights are not finite")


def test_a_folder_without_the_adapters_tensors_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update())
    (adapter / FILE).rename(adapter / "adapter_model.bin")
    refuse(
        checkpoint,
        adapter,
        f"{adapter}: no {FILE}; other formats are not read (pickled weights run code when they are loaded). PEFT "
        "writes one: PeftModel.from_pretrained(model, folder).save_pretrained(folder)",
    )


def test_a_folder_without_a_configuration_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "nothing" / "adapter_config.json"
    refuse(checkpoint, path.parent, f"{path}: missing; is {path.parent} the folder of a model?")


def test_an_adapter_without_tensors_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", {})
    refuse(checkpoint, adapter, f"{adapter / FILE}: holds no tensors; train the adapter, or leave it out")


@pytest.mark.parametrize("missing", ["lora_A", "lora_B"])
def test_half_of_an_update_is_refused(checkpoint: Path, tmp_path: Path, missing: str) -> None:
    tensors = query_update()
    del tensors[f"{KEY}.{missing}.weight"]
    adapter = write_adapter(tmp_path / "adapter", tensors)
    left = {"lora_A": "lora_B", "lora_B": "lora_A"}[missing]
    refuse(checkpoint, adapter, f"{adapter / FILE}: {QUERY} has {left}; expected lora_A and lora_B")


def test_a_convolutions_update_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    tensors = {name: value[:, :, None] for name, value in query_update().items()}
    adapter = write_adapter(tmp_path / "adapter", tensors)
    refuse(checkpoint, adapter, f"{adapter / FILE}: {QUERY}: lora_A and lora_B must be matrices")


@pytest.mark.parametrize("part", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lora_B.bias"])
def test_an_adapter_of_integers_is_refused(checkpoint: Path, tmp_path: Path, part: str) -> None:
    """8-bit codes without their scales would be merged as if they were the values."""
    extra = {f"{KEY}.lora_magnitude_vector": np.ones(32), f"{KEY}.lora_B.bias": np.ones(32)}
    tensors = {**query_update(), **{name: values.astype(np.float32) for name, values in extra.items()}}
    tensors[f"{KEY}.{part}"] = np.ones(tensors[f"{KEY}.{part}"].shape, np.int8)
    adapter = write_adapter(tmp_path / "adapter", tensors, use_dora=True, lora_bias=True)
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: {KEY}.{part} is stored as I8; known: BF16, F16, F32, F64; "
        "use the checkpoint that was not quantized",
    )


@pytest.mark.parametrize(
    "config",
    [{"r": 0}, {"lora_alpha": "8"}, {"alpha_pattern": ["query"]}, {"alpha_pattern": {"query": None}},
     {"alpha_pattern": {"(": 3}}, {"rank_pattern": {"query": "4"}}, {"init_lora_weights": ["pissa"]}],
    ids=str,
)  # fmt: skip
def test_settings_of_a_wrong_type_are_refused_with_the_files_name(
    checkpoint: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    rank = 0 if config.get("r") == 0 else 4
    adapter = write_adapter(tmp_path / "adapter", query_update(rank=rank), **config)
    with pytest.raises(CheckpointError, match=rf"\A{adapter}/adapter_(config\.json|model\.safetensors): "):
        take_all(weights_of(checkpoint, read_adapter(adapter, "any")), shapes_of(checkpoint))


def test_a_configuration_that_is_no_object_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", query_update())
    (adapter / "adapter_config.json").write_text("[]")
    refuse(checkpoint, adapter, f"{adapter / 'adapter_config.json'}: Expected `object`, got `array`")


def test_two_names_for_one_tensor_are_refused(tmp_path: Path) -> None:
    doubled = make_checkpoint(tmp_path / "doubled")
    name = f"{QUERY}.weight"
    edit_tensors(doubled / "model.safetensors", lambda tensors: tensors.update({f"bert.{name}": tensors[name]}))
    with pytest.raises(
        CheckpointError, match=exactly(f"{doubled}: two tensors are named {name!r}; one of them is 'bert.{name}'")
    ):
        weights_of(doubled)


def test_two_updates_of_one_module_are_refused_with_the_adapters_folder(checkpoint: Path, tmp_path: Path) -> None:
    twice = {name.replace("model.encoder", "model.bert.encoder"): value for name, value in query_update().items()}
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), **twice})
    refuse(checkpoint, adapter, f"{adapter}: two tensors are named {QUERY!r}; one of them is 'bert.{QUERY}'")


def test_two_values_for_one_saved_tensor_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    """One bias as `bias="all"` writes it, one as a saved module."""
    values = {f"{KEY}.{form}": np.full(32, value, np.float32) for value, form in enumerate(("bias", "base_layer.bias"))}
    adapter = write_adapter(tmp_path / "adapter", {**query_update(), **values})
    refuse(
        checkpoint,
        adapter,
        f"{adapter / FILE}: {KEY}.bias and {KEY}.base_layer.bias are values of the same tensor and differ; "
        "remove one of them",
    )


def test_a_saved_base_matrix_is_what_its_update_is_added_to(checkpoint: Path, tmp_path: Path) -> None:
    """Saved both by peft where the embedding grew before training (`save_embedding_layers`)."""
    adapter = save_adapter(checkpoint, tmp_path / "adapter", target_modules=["word_embeddings", "query"])
    module = "embeddings.word_embeddings"
    trained = read_tensors(checkpoint / "model.safetensors")[f"{module}.weight"] + np.float32(0.25)
    edit_tensors(
        adapter / FILE, lambda tensors: tensors.update({f"base_model.model.{module}.base_layer.weight": trained})
    )
    assert_merges_like_peft(checkpoint, adapter)


def test_a_refused_adapter_leaves_no_pack_behind(checkpoint: Path, tmp_path: Path) -> None:
    foreign = {name.replace("query", "q_proj"): value for name, value in query_update().items()}
    adapter = write_adapter(tmp_path / "adapter", foreign)
    output = tmp_path / "packs" / "toy"
    with pytest.raises(CheckpointError, match="which this export of the model does not have"):
        export(quick(checkpoint, output, adapters={"retrieval": adapter}))
    assert list(output.parent.iterdir()) == []


def shard(checkpoint: Path) -> Path:
    """Split the one weights file of a checkpoint in two, with an index."""
    tensors = read_tensors(checkpoint / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in parts.items():
        write_safetensors(checkpoint / file, {name: tensors[name] for name in members}, {"format": "pt"})
    weight_map = {name: file for file, members in parts.items() for name in members}
    (checkpoint / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    (checkpoint / "model.safetensors").unlink()
    return checkpoint


def join_tasks(folder: Path, single: dict[str, Path]) -> Path:
    """One file for the adapters of several tasks."""
    folder.mkdir()
    joined = {}
    for task, source in single.items():
        for name, value in load_file(source / FILE).items():
            head, _, leaf = name.rpartition(".")
            joined[f"{head}.{task}.weight" if leaf == "weight" else f"{name}.{task}"] = value
        (folder / "adapter_config.json").write_text((source / "adapter_config.json").read_text())
    save_file(joined, folder / FILE)
    return folder
