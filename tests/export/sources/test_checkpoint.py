"""Broken, contradictory and unsupported checkpoints: each is refused with the message that names the trouble."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack.errors import CheckpointError
from embedpack.pack.manifest import License
from embedpack.storage.safetensors import write_safetensors
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.sources.checkpoint import INDEX
from embedpack_export.sources.license import pack_license, read_license
from tests.helpers.exports import (
    Arrays,
    edit_json,
    edit_tensors,
    exactly,
    query_update,
    quick,
    read_tensors,
    write_adapter,
)
from tests.helpers.tiny_checkpoint import make_checkpoint

WORDS = "embeddings.word_embeddings.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


def plan(checkpoint: Path, **changes: Any) -> ExportPlan:
    return make_plan(quick(checkpoint, checkpoint.parent / "pack", **changes))


def refuse(checkpoint: Path, message: str, **changes: Any) -> None:
    """The export fails with this message and leaves nothing behind."""
    before = sorted([*checkpoint.parent.iterdir(), checkpoint.parent / "calibration.jsonl"])
    with pytest.raises(CheckpointError, match=exactly(message)):
        export(quick(checkpoint, checkpoint.parent / "pack", **changes))
    assert sorted(checkpoint.parent.iterdir()) == sorted(set(before))


def shard(checkpoint: Path) -> Path:
    """Split the weights in two files with an index."""
    tensors = read_tensors(checkpoint / "model.safetensors")
    halves = dict(zip(SHARDS, (sorted(tensors)[::2], sorted(tensors)[1::2]), strict=True))
    for file, names in halves.items():
        write_safetensors(checkpoint / file, {name: tensors[name] for name in names}, {"format": "pt"})
    weight_map = {name: file for file, names in halves.items() for name in names}
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    (checkpoint / "model.safetensors").unlink()
    return checkpoint


# --- the folder and config.json


def test_no_folder(tmp_path: Path) -> None:
    refuse(
        tmp_path / "nowhere", f"{tmp_path / 'nowhere'}: no such folder; pass the folder that a model was downloaded to"
    )


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    refuse(file, f"{file}: no such folder; pass the folder that a model was downloaded to")


def test_no_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    refuse(checkpoint, f"{checkpoint / 'config.json'}: missing; is {checkpoint} the folder of a model?")


def test_config_is_not_json(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    reason = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    refuse(checkpoint, f"{checkpoint / 'config.json'}: not valid JSON: {reason}")


def test_config_is_nested_without_end(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=rf"\A{checkpoint}/config\.json: not valid JSON: maximum recursion depth"):
        plan(checkpoint)


def test_config_is_not_utf8(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_bytes(b'{"model_type": "b\xff"}')
    with pytest.raises(
        CheckpointError, match=rf"\A{checkpoint}/config\.json: not valid JSON: 'utf-8' codec can't decode"
    ):
        plan(checkpoint)


def test_config_names_a_key_twice(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    path.write_text(path.read_text().replace("{", '{"hidden_size": 64,', 1))
    refuse(checkpoint, f"{path}: not valid JSON: the key 'hidden_size' occurs twice")


def test_config_is_no_object(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("[]")
    refuse(checkpoint, f"{checkpoint / 'config.json'}: Expected `object`, got `array`")


def test_config_lacks_a_value(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", num_hidden_layers=None)
    refuse(checkpoint, f"{checkpoint / 'config.json'}: Object missing required field `num_hidden_layers`")


def test_config_has_a_value_of_another_type(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", hidden_size="32")
    refuse(checkpoint, f"{checkpoint / 'config.json'}: Expected `int`, got `str` - at `$.hidden_size`")


def test_an_unknown_family_names_the_known_ones(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", model_type="gpt2")
    refuse(checkpoint, "config.json: unknown model_type 'gpt2'; known: bert, llama, qwen2, qwen2-5-vl, xlm-roberta")


def test_a_family_written_wrongly_names_the_nearest(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", model_type="xlm-roberta-xl")
    refuse(
        checkpoint,
        "config.json: unknown model_type 'xlm-roberta-xl'; known: bert, llama, qwen2, qwen2-5-vl, xlm-roberta; "
        "did you mean 'xlm-roberta'?",
    )


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_an_activation_that_the_graph_lacks(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, hidden_act="relu")
    refuse(checkpoint, f"{checkpoint / 'config.json'}: Invalid enum value 'relu' - at `$.hidden_act`")


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_relative_positions(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, position_embedding_type="relative_key")
    refuse(
        checkpoint, f"{checkpoint / 'config.json'}: Invalid enum value 'relative_key' - at `$.position_embedding_type`"
    )


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_a_decoder(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, is_decoder=True)
    refuse(checkpoint, f"{checkpoint / 'config.json'}: is_decoder is set, which no family supports")


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_heads_that_do_not_divide_the_hidden_size(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, num_attention_heads=5)
    refuse(checkpoint, "config.json: 5 heads do not divide the hidden size 32")


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("name", ["num_attention_heads", "hidden_size", "vocab_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -4])
def test_sizes_below_one(tmp_path: Path, model_type: str, name: str, value: int) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    edit_json(checkpoint / "config.json", **{name: value})
    refuse(checkpoint, f"{checkpoint / 'config.json'}: Expected `int` >= 1 - at `$.{name}`")


# --- weights


def test_pickled_weights_only(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    refuse(
        checkpoint,
        f"{checkpoint}: no model.safetensors or {INDEX}; other formats are not read (pickled weights run code when "
        "they are loaded)",
    )


def test_a_missing_shard(checkpoint: Path) -> None:
    (shard(checkpoint) / SHARDS[1]).unlink()
    refuse(checkpoint, f"{checkpoint / SHARDS[1]}: this shard is missing; download the model again")


def test_a_shard_without_a_promised_tensor(checkpoint: Path) -> None:
    edit_tensors(shard(checkpoint) / SHARDS[0], lambda tensors: tensors.pop(WORDS))
    refuse(
        checkpoint,
        f"{checkpoint / SHARDS[0]}: tensor {WORDS!r} is in the index, but not in this shard",
    )


def test_a_tensor_in_another_shard_than_promised(checkpoint: Path) -> None:
    moved = read_tensors(shard(checkpoint) / SHARDS[0])[WORDS]
    edit_tensors(checkpoint / SHARDS[0], lambda tensors: tensors.pop(WORDS))
    edit_tensors(checkpoint / SHARDS[1], lambda tensors: tensors.update({WORDS: moved}))
    refuse(
        checkpoint,
        f"{checkpoint / SHARDS[0]}: tensor {WORDS!r} is in the index, but not in this shard",
    )


def test_a_tensor_in_two_shards(checkpoint: Path) -> None:
    doubled = read_tensors(shard(checkpoint) / SHARDS[0])[WORDS]
    edit_tensors(checkpoint / SHARDS[1], lambda tensors: tensors.update({WORDS: doubled + 1}))
    refuse(checkpoint, f"{checkpoint / SHARDS[1]}: tensor {WORDS!r} is also in {SHARDS[0]}; remove one of the two")


@pytest.mark.parametrize("file", ["../other.safetensors", "/etc/passwd", "parts/one.safetensors", "..", ""])
def test_an_index_that_names_a_path(checkpoint: Path, file: str) -> None:
    (shard(checkpoint) / INDEX).write_text(json.dumps({"weight_map": {WORDS: file}}))
    refuse(checkpoint, f"{checkpoint / INDEX}: {file!r} is not a file name")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "Object missing required field `weight_map`"),
        ([], "Expected `object`, got `array`"),
        ({"weight_map": []}, "Expected `object`, got `array` - at `$.weight_map`"),
        ({"weight_map": {WORDS: 1}}, "Expected `str`, got `int` - at `$.weight_map[...]`"),
    ],
)
def test_an_index_without_a_map_of_names(checkpoint: Path, content: object, reason: str) -> None:
    (shard(checkpoint) / INDEX).write_text(json.dumps(content))
    refuse(checkpoint, f"{checkpoint / INDEX}: {reason}")


def test_an_empty_index(checkpoint: Path) -> None:
    (shard(checkpoint) / INDEX).write_text('{"weight_map": {}}')
    refuse(checkpoint, f"{checkpoint}: tensor {WORDS!r} is missing; is a shard or a file incomplete?")


def test_weights_cut_short(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    data = len(content) - 8 - int.from_bytes(content[:8], "little")
    refuse(
        checkpoint,
        f"{path}: not a valid safetensors file: the header describes {data} bytes of data, the file holds "
        f"{data - 100}; copy or download it again",
    )


@pytest.mark.parametrize("size", [0, 5, 8, 200])
def test_weights_cut_within_the_header(checkpoint: Path, size: int) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refuse(
        checkpoint,
        f"{path}: not a valid safetensors file: the file has {size} bytes, too few for the header length it states; "
        "copy or download it again",
    )


def test_int8_weights(checkpoint: Path) -> None:
    name = "encoder.layer.0.output.dense.weight"
    codes = np.ones((32, 64), np.int8)
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.update({name: codes}))
    refuse(checkpoint, stored_as(checkpoint, name, "I8"))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_fp8_weights(checkpoint: Path, dtype: str) -> None:
    """The file is whole: the advice is another checkpoint, not another download."""
    name = "encoder.layer.0.output.dense.weight"
    path = checkpoint / "model.safetensors"
    codes = np.ones((32, 64), np.uint8)
    edit_tensors(path, lambda tensors: tensors.update({name: codes}))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[name]["dtype"] = dtype
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    refuse(checkpoint, stored_as(checkpoint, name, dtype))


def stored_as(checkpoint: Path, name: str, dtype: str) -> str:
    return (
        f"{checkpoint / 'model.safetensors'}: {name} is stored as {dtype}; known: BF16, F16, F32, F64; "
        "use the checkpoint that was not quantized"
    )


def test_a_matrix_of_another_shape_than_config_says(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", intermediate_size=96)
    refuse(
        checkpoint,
        f"{checkpoint / 'model.safetensors'}: encoder.layer.0.intermediate.dense.weight has the shape [64, 32], "
        "config.json asks for [96, 32]",
    )


def test_a_vector_of_another_shape_than_config_says(checkpoint: Path) -> None:
    name = "encoder.layer.1.attention.self.key.bias"
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.update({name: np.zeros(31, np.float32)}))
    refuse(checkpoint, f"{checkpoint / 'model.safetensors'}: {name} has the shape [31], config.json asks for [32]")


def test_a_missing_tensor(checkpoint: Path) -> None:
    name = "encoder.layer.1.output.dense.bias"
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.pop(name))
    refuse(checkpoint, f"{checkpoint}: tensor {name!r} is missing; is a shard or a file incomplete?")


def test_tensors_left_over(checkpoint: Path) -> None:
    def add(tensors: Arrays) -> None:
        tensors.update({f"encoder.layer.{layer}.rotary.weight": np.zeros(3, np.float32) for layer in range(7)})

    edit_tensors(checkpoint / "model.safetensors", add)
    names = ", ".join(f"encoder.layer.{layer}.rotary.weight" for layer in range(5))
    refuse(checkpoint, f"{checkpoint}: the family has no use for {names} and 2 more; is it another architecture?")


def test_layers_that_config_does_not_count(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"the family has no use for encoder\.layer\.1\..* and 11 more; "):
        export(quick(checkpoint, checkpoint.parent / "pack"))


@pytest.mark.parametrize(("model_type", "prefix"), [("bert", "bert."), ("xlm-roberta", "roberta.")])
def test_heads_of_pretraining_are_no_obstacle(tmp_path: Path, model_type: str, prefix: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)

    def wrap(tensors: Arrays) -> None:
        for name in list(tensors):
            tensors[f"{prefix}{name}"] = tensors.pop(name)
        for name in (f"{prefix}pooler.dense.bias", "cls.bias" if prefix == "bert." else "lm_head.bias"):
            tensors[name] = np.zeros(2, np.float32)
        tensors[f"{prefix}embeddings.position_ids"] = np.arange(40)[None]

    edit_tensors(checkpoint / "model.safetensors", wrap)
    assert export(quick(checkpoint, tmp_path / "pack", weights=("fp32",))).family == model_type


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(checkpoint: Path, value: float) -> None:
    def spoil(tensors: Arrays) -> None:
        tensors["encoder.layer.1.output.dense.weight"][9, 2] = value

    edit_tensors(checkpoint / "model.safetensors", spoil)
    refuse(checkpoint, "encoder.layer.1.output.dense.weight: merged weights are not finite in rows 0 to 31")


# --- the tokenizer


def test_no_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    refuse(
        checkpoint,
        f"{checkpoint}: tokenizer.json is missing; save one with transformers: "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
    )


def test_a_damaged_tokenizer(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:100])
    message = "tokenizer.json: the tokenizers library cannot read it: EOF while parsing .*; copy it again"
    with pytest.raises(CheckpointError, match=rf"\A{checkpoint}: {message}\Z"):
        plan(checkpoint)


def test_a_tokenizer_with_more_ids_than_the_table_has_rows(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    content = json.loads(path.read_text())
    rows = len(content["model"]["vocab"])
    content["model"]["vocab"]["surplus"] = rows
    path.write_text(json.dumps(content))
    refuse(
        checkpoint,
        f"{path}: has ids up to {rows}, the embedding table only {rows} rows; the tokenizer belongs to another model",
    )


# --- what sentence-transformers says


def test_nothing_says_how_to_pool(checkpoint: Path) -> None:
    (checkpoint / "modules.json").unlink()
    refuse(
        checkpoint,
        f"{checkpoint}: no modules.json, so the pooling of the tokens is unknown; pass --pooling mean|cls|last",
    )
    assert plan(checkpoint, pooling="last").pooling == "last"


def test_a_module_that_the_graph_lacks(checkpoint: Path) -> None:
    path = checkpoint / "modules.json"
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    path.write_text(json.dumps([*json.loads(path.read_text())[:2], dense]))
    refuse(checkpoint, f"{path}: unknown module 'Dense'; known: Transformer, Pooling, Normalize")


def test_several_poolings_need_a_choice(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    edit_json(path, pooling_mode_cls_token=True)
    refuse(checkpoint, f"{path}: asks for 2 ways of pooling, one is possible; pass --pooling")
    assert plan(checkpoint, pooling="cls").pooling == "cls"


def test_no_pooling_at_all(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    edit_json(path, pooling_mode_mean_tokens=False)
    refuse(checkpoint, f"{path}: asks for 0 ways of pooling, one is possible; pass --pooling")


def test_an_old_flag_of_a_pooling_that_the_graph_lacks(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    edit_json(path, pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True)
    refuse(
        checkpoint,
        f"{path}: asks for pooling_mode_max_tokens; known: pooling_mode_mean_tokens, pooling_mode_cls_token, "
        "pooling_mode_lasttoken",
    )


def test_a_new_name_of_a_pooling_that_the_graph_lacks(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    path.write_text('{"pooling_mode": "max"}')
    refuse(checkpoint, f"{path}: unknown pooling_mode 'max'; known: mean, cls, lasttoken")


def test_pooling_without_the_prompt(checkpoint: Path) -> None:
    path = checkpoint / "1_Pooling" / "config.json"
    edit_json(path, include_prompt=False)
    refuse(checkpoint, f"{path}: include_prompt is false; pooling without the prompt is not supported")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, "last"),
    ],
)
def test_pooling_is_read(checkpoint: Path, content: dict[str, object], expected: str) -> None:
    (checkpoint / "1_Pooling" / "config.json").write_text(json.dumps(content))
    assert plan(checkpoint).pooling == expected


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("modules.json", {}, "Expected `array`, got `object`"),
        ("modules.json", [{"path": ""}], "Object missing required field `type` - at `$[0]`"),
        ("modules.json", [{"type": "a.Pooling", "path": 1}], "Expected `str`, got `int` - at `$[0].path`"),
        ("1_Pooling/config.json", [], "Expected `object`, got `array`"),
        (
            "sentence_bert_config.json",
            {"max_seq_length": "32"},
            "Expected `int | null`, got `str` - at `$.max_seq_length`",
        ),
        ("sentence_bert_config.json", [32], "Expected `object`, got `array`"),
        ("config_sentence_transformers.json", {"prompts": ["q"]}, "Expected `object`, got `array` - at `$.prompts`"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": 1}},
            "Expected `str | null`, got `int` - at `$.prompts[...]`",
        ),
        (
            "config_sentence_transformers.json",
            {"matryoshka_dims": 8},
            "Expected `array`, got `int` - at `$.matryoshka_dims`",
        ),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": 1},
            "Expected `str | null`, got `int` - at `$.default_prompt_name`",
        ),
    ],
)  # fmt: skip
def test_values_of_a_wrong_type(checkpoint: Path, file: str, content: object, reason: str) -> None:
    (checkpoint / file).write_text(json.dumps(content))
    refuse(checkpoint, f"{checkpoint / file}: {reason}")


@pytest.mark.parametrize("file", ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"])
def test_files_that_are_not_json(checkpoint: Path, file: str) -> None:
    (checkpoint / file).write_text("")
    refuse(checkpoint, f"{checkpoint / file}: not valid JSON: Expecting value: line 1 column 1 (char 0)")


def test_the_maximum_length_is_read(checkpoint: Path) -> None:
    assert plan(checkpoint).max_tokens == 32
    assert plan(checkpoint, max_tokens=40).max_tokens == 40


@pytest.mark.parametrize(("model_type", "positions"), [("bert", 40), ("xlm-roberta", 38)])
def test_the_maximum_length_never_passes_the_positions(tmp_path: Path, model_type: str, positions: int) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    edit_json(checkpoint / "sentence_bert_config.json", max_seq_length=8192)
    assert plan(checkpoint).max_tokens == positions
    (checkpoint / "sentence_bert_config.json").unlink()
    assert plan(checkpoint).max_tokens == positions


@pytest.mark.parametrize(("model_type", "positions"), [("bert", 40), ("xlm-roberta", 38)])
@pytest.mark.parametrize("length", [-1, 0, 2, 41, 512])
def test_a_maximum_length_that_the_model_cannot_take(
    tmp_path: Path, model_type: str, positions: int, length: int
) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type)
    message = f"--max-length {length} is not possible; this model takes 3 to {positions} tokens"
    refuse(checkpoint, message, max_tokens=length)


@pytest.mark.parametrize("length", [-5, 0, 1, 2])
def test_a_stated_maximum_length_without_room_for_a_token(checkpoint: Path, length: int) -> None:
    """The tokenizer would not cut at all with room for 1 token, and cut all of the text with room for 2."""
    path = checkpoint / "sentence_bert_config.json"
    edit_json(path, max_seq_length=length)
    refuse(checkpoint, f"{path}: Expected `int` >= 3 - at `$.max_seq_length`")


@pytest.mark.parametrize(
    ("asked", "named"), [((64,), "[32, 64]"), ((8, 0), "[0, 8, 32]"), ((-8,), "[-8, 32]"), ((33,), "[32, 33]")]
)
def test_truncations_that_are_not_possible(checkpoint: Path, asked: tuple[int, ...], named: str) -> None:
    message = f"truncations {named} are not possible; the vectors have 32 dimensions"
    refuse(checkpoint, message, truncate_dims=asked)


def test_stated_truncations_that_are_not_possible(checkpoint: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", matryoshka_dims=[16, 768])
    refuse(checkpoint, "truncations [16, 32, 768] are not possible; the vectors have 32 dimensions")


def test_prompts_and_truncations_are_read(checkpoint: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", default_prompt_name="passage", matryoshka_dims=[16, 8])
    found = plan(checkpoint)
    (task,) = found.tasks.values()
    assert task.prompts == {"query": "query: ", "passage": "passage: "}
    assert task.default_prompt_name == "passage"
    assert found.truncate_dims == (8, 16, 32)


def test_asked_truncations_take_the_place_of_stated_ones(checkpoint: Path) -> None:
    assert plan(checkpoint, truncate_dims=(24,)).truncate_dims == (24, 32)


def test_truncations_of_config_json_are_read(checkpoint: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", matryoshka_dims=None)
    edit_json(checkpoint / "config.json", matryoshka_dims=[8])
    assert plan(checkpoint).truncate_dims == (8, 32)


def test_a_checkpoint_without_sentence_transformers_has_no_prompts(checkpoint: Path) -> None:
    for file in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (checkpoint / file).unlink()
    found = plan(checkpoint, pooling="mean")
    (task,) = found.tasks.values()
    assert (dict(task.prompts), task.default_prompt_name, found.truncate_dims) == ({}, None, (32,))


def test_empty_prompts_are_left_out(checkpoint: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", prompts={"query": "q: ", "document": None})
    (task,) = plan(checkpoint).tasks.values()
    assert task.prompts == {"query": "q: "}


@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_default_prompt_that_does_not_exist(checkpoint: Path, with_adapter: bool) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", default_prompt_name="pasage")
    adapters = {"retrieval": write_adapter(checkpoint.parent / "adapter", query_update())} if with_adapter else {}
    refuse(
        checkpoint,
        "config_sentence_transformers.json: unknown prompt 'pasage'; known: query, passage; did you mean 'passage'?",
        adapters=adapters,
    )


def test_an_adapters_own_prompts_count_for_its_task(checkpoint: Path) -> None:
    adapters = {task: write_adapter(checkpoint.parent / task, query_update()) for task in ("code", "retrieval")}
    own = {"prompts": {"code": "Code: "}, "default_prompt_name": "code", "matryoshka_dims": [16]}
    (adapters["code"] / "config_sentence_transformers.json").write_text(json.dumps(own))
    found = plan(checkpoint, adapters=adapters)
    assert found.tasks["code"].prompts == {"code": "Code: "}
    assert found.tasks["code"].default_prompt_name == "code"
    assert found.tasks["retrieval"].prompts == {"query": "query: ", "passage": "passage: "}
    assert found.truncate_dims == (16, 32)


def pooled_adapter(folder: Path, pooling: str) -> Path:
    write_adapter(folder, query_update())
    shutil.copytree(folder.parent / "toy" / "1_Pooling", folder / "1_Pooling")
    shutil.copy(folder.parent / "toy" / "modules.json", folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    return folder


def test_pooling_is_read_from_any_adapter(checkpoint: Path) -> None:
    adapters = {
        "code": write_adapter(checkpoint.parent / "code", query_update()),
        "retrieval": pooled_adapter(checkpoint.parent / "retrieval", "cls"),
    }
    (checkpoint / "modules.json").unlink()
    (adapters["code"] / "modules.json").unlink(missing_ok=True)
    assert plan(checkpoint, adapters=adapters).pooling == "cls"


def test_poolings_that_contradict_each_other_need_a_choice(checkpoint: Path) -> None:
    adapters = {"retrieval": pooled_adapter(checkpoint.parent / "retrieval", "cls")}
    refuse(
        checkpoint,
        f"{checkpoint} has mean pooling, {adapters['retrieval']} has cls; pass --pooling",
        adapters=adapters,
    )
    assert plan(checkpoint, adapters=adapters, pooling="cls").pooling == "cls"


@pytest.mark.parametrize("task", ["../outside", "a/b", "", ".hidden", "two words", "nul\0"])
def test_a_task_whose_name_makes_no_file_name(checkpoint: Path, task: str) -> None:
    adapters = {task: write_adapter(checkpoint.parent / "adapter", query_update())}
    refuse(
        checkpoint,
        f"task {task!r}: a task is named with letters, digits, '.', '_' and '-', the first a letter or digit",
        adapters=adapters,
    )


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


# --- the licence


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\n---\n", License(id="mit", non_commercial=False)),
        ("---\nlanguage: en\nlicense: 'cc-by-nc-4.0'\n---\n", License(id="cc-by-nc-4.0", non_commercial=True)),
        ('---\r\nlicense: "apache-2.0"\r\n---\r\n', License(id="apache-2.0", non_commercial=False)),
        ("---\nlicense:\n- mit\n---\n", License(id="mit", non_commercial=False)),
        ("---\nlicense: [mit]\n---\n", License(id="mit", non_commercial=False)),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", License(id="qwen-research", non_commercial=True)),
        ("---\nlicense: other\n---\n", License(id="other", non_commercial=False)),
        ("---\nlicense: qwen-research\n---\n", License(id="qwen-research", non_commercial=True)),
        ("---\nlanguage: en\n---\nlicense: mit\n", License(id=None, non_commercial=False)),
        ("license: mit\n", License(id=None, non_commercial=False)),
        ("", License(id=None, non_commercial=False)),
    ],
)
def test_the_licence_of_the_model_card(checkpoint: Path, card: str, expected: License) -> None:
    (checkpoint / "README.md").write_bytes(card.encode())
    found, text = read_license(checkpoint)
    assert found == expected
    stated = expected.id or "none stated: ask the makers of the checkpoint before you pass this pack on"
    assert text == f"License of the weights in this pack, as the checkpoint's model card states it: {stated}\n"


def test_no_model_card(checkpoint: Path) -> None:
    (checkpoint / "README.md").unlink()
    assert read_license(checkpoint)[0] == License(id=None, non_commercial=False)


@pytest.mark.parametrize("name", ["LICENSE", "LICENSE.txt", "LICENSE.md"])
def test_the_licence_file_is_copied(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_text("Do as you please.\n")
    assert read_license(checkpoint) == (License(id="apache-2.0", non_commercial=False), "Do as you please.\n")
    manifest = export(quick(checkpoint, checkpoint.parent / "pack", weights=("fp32",)))
    assert manifest.license.id == "apache-2.0"
    assert (checkpoint.parent / "pack" / "LICENSE").read_text() == "Do as you please.\n"


def test_the_licence_of_an_adapter_counts_too(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    (tmp_path / "silent").mkdir()
    found, text = pack_license(checkpoint, [tmp_path / "silent", tmp_path])
    assert found == License(id="apache-2.0 AND cc-by-nc-4.0", non_commercial=True)
    assert "cc-by-nc-4.0" in text
