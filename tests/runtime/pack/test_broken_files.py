"""Broken and hostile files of a pack: each kind of damage is one clear PackError, never a wrong vector."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from embedpack import Embedder
from embedpack.inputs import pack_tokenizer
from embedpack.pack.folder import read_pack
from tests.helpers.broken_packs import (
    Edit,
    ReplaceFile,
    check_all_files,
    put,
    refusal,
    switchable,
    with_images,
    with_multi,
)

# The digest of a file is checked when it is opened.


def test_graph_cut_short(pack: Path) -> None:
    size = (pack / "default-fp32.onnx").stat().st_size
    os.truncate(pack / "default-fp32.onnx", 1000)
    message = f"PACK/default-fp32.onnx: expected {size} bytes, found 1000; copy the pack again"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message
    assert refusal(pack, lambda: check_all_files(pack)) == message


def flip_a_byte(pack: Path, name: str) -> str:
    """Change one byte in the middle of a file; returns the message of the error."""
    content = bytearray((pack / name).read_bytes())
    content[len(content) // 2] ^= 1
    (pack / name).write_bytes(content)
    expected, found = read_pack(pack).manifest.files[name].sha256, hashlib.sha256(content).hexdigest()
    return f"PACK/{name}: expected sha256 {expected[:16]}…, found {found[:16]}…; copy the pack again"


@pytest.mark.parametrize("name", ["default-fp32.onnx", "tokenizer.json", "weights/fp32.bin", "weights/shared.bin"])
def test_one_changed_byte_is_found_on_opening(pack: Path, name: str) -> None:
    message = flip_a_byte(pack, name)
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message
    assert refusal(pack, lambda: check_all_files(pack)) == message


@pytest.mark.parametrize("name", ["weights/fp32.bin", "weights/shared.bin"])
def test_weights_cut_short(pack: Path, name: str) -> None:
    size = (pack / name).stat().st_size
    os.truncate(pack / name, size - 1)
    message = f"PACK/{name}: expected {size} bytes, found {size - 1}; copy the pack again"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message
    assert refusal(pack, lambda: check_all_files(pack)) == message


def test_weights_with_something_behind_them(pack: Path) -> None:
    size = (pack / "weights/fp32.bin").stat().st_size
    with (pack / "weights/fp32.bin").open("ab") as stream:
        stream.write(b"\0")
    message = f"PACK/weights/fp32.bin: expected {size} bytes, found {size + 1}; copy the pack again"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message


@pytest.mark.parametrize("name", ["tokenizer.json", "default-fp32.onnx", "weights/fp32.bin"])
def test_missing_file(pack: Path, name: str) -> None:
    (pack / name).unlink()
    message = f"PACK/{name}: missing, though listed in pack.json; copy the pack again"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message
    assert refusal(pack, lambda: check_all_files(pack)) == message


def test_folder_in_place_of_a_file(pack: Path) -> None:
    (pack / "tokenizer.json").unlink()
    (pack / "tokenizer.json").mkdir()
    message = "PACK/tokenizer.json: missing, though listed in pack.json; copy the pack again"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message


@pytest.mark.parametrize("name", ["extra.txt", "weights/int2.bin", ".hidden", "LICENSE.orig"])
def test_extra_file(pack: Path, name: str) -> None:
    (pack / name).write_text("?")
    message = f"PACK/{name}: not listed in pack.json; remove it"
    assert refusal(pack, lambda: check_all_files(pack)) == message


def test_extra_link_to_a_folder(pack: Path) -> None:
    (pack / "more").symlink_to(pack.parent)
    message = "PACK/more: not listed in pack.json; remove it"
    assert refusal(pack, lambda: check_all_files(pack)) == message


def test_extra_file_does_not_count_when_a_pack_is_opened(pack: Path) -> None:
    (pack / "default-int2.onnx").write_text("?")
    assert "default-int2" not in Embedder(pack, weights="fp32", threads=1).pack.manifest.variants


def test_linked_file(pack: Path) -> None:
    (pack / "tokenizer.json").rename(pack.parent / "elsewhere.json")
    (pack / "tokenizer.json").symlink_to(pack.parent / "elsewhere.json")
    message = "PACK/tokenizer.json: 'tokenizer.json' is a symbolic link; copy the pack with its links resolved"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message
    assert refusal(pack, lambda: check_all_files(pack)) == message


def test_linked_folder(pack: Path) -> None:
    shutil.move(pack / "weights", pack.parent / "elsewhere")
    (pack / "weights").symlink_to(pack.parent / "elsewhere")
    message = "PACK/weights/fp32.bin: 'weights' is a symbolic link; copy the pack with its links resolved"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message
    assert refusal(pack, lambda: check_all_files(pack)) == message


@pytest.mark.parametrize("content", [b"\0", b"\xff"])
def test_zeros_and_random_weights_are_found_on_opening(pack: Path, content: bytes) -> None:
    size = (pack / "weights/fp32.bin").stat().st_size
    (pack / "weights/fp32.bin").write_bytes(content * size)
    message = refusal(pack, lambda: Embedder(pack, weights="fp32"))
    assert message.startswith("PACK/weights/fp32.bin: expected sha256 ")


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "4bit", "binary"])
def test_vectors_that_are_not_finite_are_blamed_on_the_pack(
    pack: Path, replace_file: ReplaceFile, precision: str
) -> None:
    size = (pack / "weights/shared.bin").stat().st_size
    replace_file("weights/shared.bin", b"\xff" * size)
    model = Embedder(pack, weights="fp32", threads=1)
    message = refusal(pack, lambda: model.encode("a cat", precision=precision))
    expected = (
        "PACK: default-fp32 computed a vector that is zero, not finite or not of length 1; run: embedpack verify PACK"
    )
    assert message == expected


# Files whose digest is right and whose content is not. Messages of onnxruntime differ between its versions.


def cannot_load(graph: str) -> str:
    return f"PACK/{graph}: onnxruntime {ort.__version__} cannot load it: [ONNXRuntimeError] : "


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x08\x0a"])
def test_graph_that_is_no_onnx(pack: Path, replace_file: ReplaceFile, content: bytes) -> None:
    replace_file("default-fp32.onnx", content)
    message = "PACK/default-fp32.onnx: not an ONNX graph of embedpack; copy the pack again"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message


@pytest.mark.parametrize("weights", ["fp32", "int4"])
def test_graph_that_points_behind_its_weights(pack: Path, replace_file: ReplaceFile, weights: str) -> None:
    replace_file(f"weights/{weights}.bin", (pack / f"weights/{weights}.bin").read_bytes()[:4096])
    message = refusal(pack, lambda: Embedder(pack, weights=weights))
    assert message.startswith(cannot_load(f"default-{weights}.onnx"))


def test_tokenizer_that_is_not_utf8(pack: Path, replace_file: ReplaceFile) -> None:
    replace_file("tokenizer.json", b"\xff{}")
    message = (
        "PACK: tokenizer.json: the tokenizers library cannot read it: "
        "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte; copy it again"
    )
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"model": {"type": "Unheard-of"}}'])
def test_tokenizer_that_is_no_tokenizer(pack: Path, replace_file: ReplaceFile, content: bytes) -> None:
    replace_file("tokenizer.json", content)
    message = refusal(pack, lambda: Embedder(pack, weights="fp32"))
    assert message.startswith("PACK: tokenizer.json: the tokenizers library cannot read it: ")
    assert message.endswith("; copy it again")


def test_tokenizer_that_panics(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Panics of Rust code are BaseExceptions, so as not to be caught."""
    panic = type("PanicException", (BaseException,), {})

    def fail(*_: object, **__: object) -> None:
        raise panic("index out of bounds")

    for name in ("get_vocab_size", "num_special_tokens_to_add"):
        with monkeypatch.context() as patch:
            patch.setattr("embedpack.inputs.tokenizer.Tokenizer", PanickingTokenizer(name, fail))
            message = refusal(pack, lambda: Embedder(pack, weights="fp32"))
        expected = "PACK: tokenizer.json: the tokenizers library cannot read it: index out of bounds; copy it again"
        assert message == expected


class PanickingTokenizer:
    """A tokenizer, one of whose methods fails."""

    truncation = None

    def __init__(self, name: str, method: Callable[..., object]) -> None:
        setattr(self, name, method)

    def from_str(self, content: str) -> PanickingTokenizer:
        return self

    def encode(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(ids=[])

    def get_added_tokens_decoder(self) -> dict[int, object]:
        return {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_, **__: 1


def test_tokenizer_that_is_too_large(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_tokenizer, "MAX_TOKENIZER_BYTES", 10)
    size = (pack / "tokenizer.json").stat().st_size
    message = f"PACK/tokenizer.json: {size} bytes; a tokenizer has at most 10"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_tokenizer_of_another_model(pack: Path, replace_file: ReplaceFile, weights: str) -> None:
    tokenizer = json.loads((pack / "tokenizer.json").read_bytes())
    tokenizer["model"]["vocab"]["zebra"] = 99_999
    replace_file("tokenizer.json", json.dumps(tokenizer).encode())
    rows = read_pack(pack).manifest.text.vocabulary
    message = (
        f"PACK: tokenizer.json has ids up to 99999, the graphs' embedding table only {rows} rows; "
        "it belongs to another model: copy the pack again"
    )
    assert refusal(pack, lambda: Embedder(pack, weights=weights)) == message


@pytest.mark.parametrize("limit", [1, 2])
def test_token_limit_without_room_for_a_text(pack: Path, edit: Edit, limit: int) -> None:
    edit(put("text", "max_tokens", limit))
    message = f"PACK: max_tokens is {limit}, but the tokenizer adds 2 special tokens to a text; export the pack again"
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message


def test_token_limit_beyond_the_models_positions(pack: Path, edit: Edit) -> None:
    edit(put("text", "max_tokens", 1000))
    model = Embedder(pack, weights="fp32", threads=1)
    message = refusal(pack, lambda: model.encode("a cat " * 100))
    prefix = "PACK/default-fp32.onnx: sentence_embedding cannot be computed: [ONNXRuntimeError] : "
    assert message.startswith(prefix)
    assert "\n" not in message


def test_adapter_that_is_none(pack: Path, edit: Edit) -> None:
    edit(switchable())
    message = refusal(pack, lambda: Embedder(pack, variant="default-int8"))
    assert message.startswith("PACK/LICENSE: onnxruntime cannot load this adapter: ")
    assert "\n" not in message


def test_graph_without_inputs_for_images(pack: Path, edit: Edit) -> None:
    edit(with_images())
    model = Embedder(pack, weights="fp32", threads=1)
    items: list[Any] = ["a cat", np.zeros((56, 56, 3), np.uint8)]
    for item in items:
        message = refusal(pack, functools.partial(model.encode, item))
        assert message.startswith("PACK/default-fp32.onnx: ")
        assert "\n" not in message


def test_graph_without_multi_vectors(pack: Path, edit: Edit) -> None:
    edit(with_multi())
    model = Embedder(pack, weights="fp32", threads=1)
    message = refusal(pack, lambda: model.encode_multi("a cat"))
    assert message.startswith("PACK/default-fp32.onnx: token_embeddings cannot be computed: ")


@pytest.mark.parametrize("version", ["99.0.0", "99", "1.999"])
def test_graph_that_needs_a_newer_onnxruntime(pack: Path, edit: Edit, version: str) -> None:
    edit(put("variants", "default-fp32", "min_onnxruntime", version))
    message = (
        f"this pack needs onnxruntime {version} or newer, found {ort.__version__}; run: pip install -U onnxruntime"
    )
    assert refusal(pack, lambda: Embedder(pack, weights="fp32")) == message
