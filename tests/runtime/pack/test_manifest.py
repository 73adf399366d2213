"""The manifest as it is written: the same bytes for the same content, and what a reader gets from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedpack.pack.digests import describe_file
from embedpack.pack.folder import read_pack, write_manifest
from embedpack.pack.input_recipes import Prompt
from embedpack.pack.variants import VisionGraph


def test_written_manifest_is_the_one_that_was_read(tiny: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, read_pack(tiny).manifest)
    assert (tmp_path / "pack.json").read_bytes() == (tiny / "pack.json").read_bytes()


def test_described_file_is_the_entry_of_the_manifest(tiny: Path) -> None:
    for name, entry in read_pack(tiny).manifest.files.items():
        assert describe_file(tiny / name) == entry


def test_read_gives_the_content(tiny: Path) -> None:
    opened = read_pack(str(tiny))
    content = opened.read("tokenizer.json")
    assert hashlib.sha256(content).hexdigest() == opened.manifest.files["tokenizer.json"].sha256
    assert opened.path("weights/fp32.bin") == tiny / "weights" / "fp32.bin"


def test_manifest_cannot_be_changed(tiny: Path) -> None:
    manifest: Any = read_pack(tiny).manifest
    with pytest.raises(AttributeError):
        manifest.text.max_tokens = 5


def test_a_space_is_of_one_model_and_its_weights(tiny: Path) -> None:
    manifest = read_pack(tiny).manifest
    task = msgspec.structs.replace(manifest.tasks["default"], space="search")
    other = msgspec.structs.replace(manifest, tasks={"query": task, "passage": task})
    assert manifest.space("default") == f"tiny-bert/default/{manifest.source.fingerprint[:16]}"
    assert other.space("query") == other.space("passage") == f"tiny-bert/search/{manifest.source.fingerprint[:16]}"


def test_a_prompt_is_the_wanted_one_or_the_default(tiny: Path) -> None:
    task = read_pack(tiny).manifest.tasks["default"]
    prompts = {name: Prompt(prefix=f"{name}: ") for name in ("query", "passage")}
    plain = msgspec.structs.replace(task, prompts=prompts, default_prompt_name=None)
    assert [plain.prompt_name(name) for name in ("query", "poem", None)] == ["query", "", ""]
    assert [plain.prompt(name).prefix for name in ("query", "poem", None)] == ["query: ", "", ""]
    default = msgspec.structs.replace(plain, default_prompt_name="passage")
    assert [default.prompt_name(name) for name in ("query", "poem", None)] == ["query", "passage", "passage"]
    assert [default.prompt(name).prefix for name in ("query", "poem", None)] == ["query: ", "passage: ", "passage: "]


def test_bytes_of_a_variant_count_each_file_once_and_the_vision_graph(tiny: Path) -> None:
    manifest = read_pack(tiny).manifest
    variant = manifest.variants["default-int8"]
    text = sum(manifest.files[name].bytes for name in {variant.graph, *variant.external_data})
    assert manifest.variant_bytes("default-int8") == text
    # A vision graph that shares the text graph's weights.
    vision = VisionGraph(gives="tokens", graph="default-fp32.onnx", external_data=variant.external_data, operators=())
    image: Any = object()
    with_images = msgspec.structs.replace(manifest, image=image, vision={"int8": vision})
    assert with_images.variant_bytes("default-int8") == text + manifest.files["default-fp32.onnx"].bytes
