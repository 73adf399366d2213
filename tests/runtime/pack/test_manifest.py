"""The manifest as it is written: the same bytes for the same content, and what a reader gets from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from embedpack.pack.folder import describe_file, read_pack, write_manifest


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


def test_space_names_model_task_and_weights_source(tiny: Path) -> None:
    manifest = read_pack(tiny).manifest
    assert manifest.space("code") == f"tiny-bert/code/{manifest.source.fingerprint[:16]}"
