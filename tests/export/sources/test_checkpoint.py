"""Broken, contradictory and unsupported checkpoints: each is refused with its own message."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import write_safetensors
from embedpack_export.families import families
from embedpack_export.pipeline import export
from embedpack_export.sources.checkpoint import INDEX, read_checkpoint
from tests.helpers.exports import (
    Arrays,
    edit_json,
    edit_tensors,
    quick,
    read_tensors,
)
from tests.helpers.plans import plan, refuse
from tests.helpers.tiny_checkpoint import make_checkpoint

WORDS = "embeddings.word_embeddings.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


KNOWN = ", ".join(families())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy")


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
    stated = f"{checkpoint / 'config.json'}: architectures is ['BertModel']"
    refuse(checkpoint, f"{stated}; unknown model_type 'gpt2'; known: {KNOWN}")


def test_a_family_written_wrongly_names_the_nearest(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", model_type="xlm-roberta-xl")
    stated = f"{checkpoint / 'config.json'}: architectures is ['BertModel']"
    refuse(
        checkpoint,
        f"{stated}; unknown model_type 'xlm-roberta-xl'; known: {KNOWN}; did you mean 'xlm-roberta'?",
    )


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_an_activation_that_the_graph_lacks(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, hidden_act="silu")
    refuse(
        checkpoint,
        f"{checkpoint / 'config.json'}: hidden_act is 'silu'; supported: gelu, gelu_new, gelu_pytorch_tanh, "
        "relu; export a checkpoint without it",
    )


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_relative_positions(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, position_embedding_type="relative_key")
    refuse(
        checkpoint,
        f"{checkpoint / 'config.json'}: position_embedding_type is 'relative_key'; supported: absolute, null; "
        "export a checkpoint without it",
    )


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_a_decoder(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, is_decoder=True)
    refuse(checkpoint, f"{checkpoint / 'config.json'}: is_decoder is True; supported: false, null; export an encoder")


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_heads_that_do_not_divide_the_hidden_size(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", model_type, num_attention_heads=5)
    refuse(checkpoint, "config.json: 5 heads do not divide the hidden size 32; restore the config.json of the model")


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
        "config.json needs [96, 32]",
    )


def test_a_vector_of_another_shape_than_config_says(checkpoint: Path) -> None:
    name = "encoder.layer.1.attention.self.key.bias"
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.update({name: np.zeros(31, np.float32)}))
    refuse(checkpoint, f"{checkpoint / 'model.safetensors'}: {name} has the shape [31], config.json needs [32]")


def test_a_missing_tensor(checkpoint: Path) -> None:
    name = "encoder.layer.1.output.dense.bias"
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.pop(name))
    refuse(checkpoint, f"{checkpoint}: tensor {name!r} is missing; is a shard or a file incomplete?")


def test_tensors_left_over(checkpoint: Path) -> None:
    def add(tensors: Arrays) -> None:
        tensors.update({f"encoder.layer.{layer}.rotary.weight": np.zeros(3, np.float32) for layer in range(7)})

    edit_tensors(checkpoint / "model.safetensors", add)
    names = ", ".join(f"encoder.layer.{layer}.rotary.weight" for layer in range(5))
    refuse(checkpoint, f"{checkpoint}: unused tensors: {names} and 2 more; is it another architecture?")


def test_layers_that_config_does_not_count(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"unused tensors: encoder\.layer\.1\..* and 11 more; "):
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
    refuse(
        checkpoint,
        "encoder.layer.1.output.dense.weight: merged weights are not finite in rows 0 to 31; "
        "the checkpoint or the adapter is damaged: download it again",
    )


# --- the tokenizer


def test_no_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    refuse(
        checkpoint,
        f"{checkpoint}: tokenizer.json is missing, there is no other file of a tokenizer; copy tokenizer.json from the "
        "folder of the model that this one was trained from",
    )


def test_a_damaged_tokenizer(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match=rf"\A{path}: not valid JSON: "):
        plan(checkpoint)
    path.write_bytes(content.replace(b"BertPreTokenizer", b"AnotherPreTokenizer"))
    message = "the tokenizers library cannot read it: .*; copy it again"
    with pytest.raises(CheckpointError, match=rf"\A{path}: {message}\Z"):
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


@pytest.mark.parametrize("nested", [False, True])
def test_numbers_of_layers_beyond_the_tensors_are_refused_before_anything_is_built(
    tmp_path: Path, nested: bool
) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    count = {"num_hidden_layers": 10**8}
    edit_json(checkpoint / "config.json", **({"text_config": count} if nested else count))
    message = r"config\.json: num_hidden_layers is 100000000, the checkpoint has \d+ tensors; are both of one model\?"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(checkpoint)
