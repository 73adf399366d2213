"""Packs that are replaced while they are open: files opened later are of the same pack, or an error."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.pack.digests import describe_file
from tests.helpers.broken_packs import refusal

TEXTS = ["read every label " * count for count in range(1, 200)]
REPLACED = "PACK: the pack was replaced or removed while it was open; open it again"


def open_pack(pack: Path) -> Embedder:
    """The pack on two threads, without its session of one thread."""
    return Embedder(pack, weights="fp32", threads=2)


def replace_by_another_model(pack: Path) -> None:
    """Put a pack with other weights in the place of `pack`, as a deployment by rename does."""
    other = pack.parent / "other"
    shutil.copytree(pack, other)
    name = "weights/shared.bin"
    content = np.frombuffer((other / name).read_bytes(), np.float32).copy()
    content[np.isfinite(content)] *= 1.5
    (other / name).write_bytes(content.tobytes())
    manifest = json.loads((other / "pack.json").read_bytes())
    entry = describe_file(other / name)
    manifest["files"][name] = {"sha256": entry.sha256, "bytes": entry.bytes}
    (other / "pack.json").write_text(json.dumps(manifest))
    pack.rename(pack.parent / "old")
    other.rename(pack)


def test_one_thread_session_of_another_model_is_refused(pack: Path) -> None:
    model = open_pack(pack)
    before = model.encode("a cat").codes
    replace_by_another_model(pack)
    assert np.array_equal(model.encode("a cat").codes, before)
    assert refusal(pack, lambda: model.encode(TEXTS)) == REPLACED
    assert not np.array_equal(open_pack(pack).encode("a cat").codes, before)


def test_same_pack_again_is_no_other_model(pack: Path) -> None:
    model = open_pack(pack)
    shutil.copytree(pack, pack.parent / "copy")
    shutil.rmtree(pack)
    (pack.parent / "copy").rename(pack)
    assert len(model.encode(TEXTS)) == len(TEXTS)


def test_removed_pack(pack: Path) -> None:
    model = open_pack(pack)
    shutil.rmtree(pack)
    assert len(model.encode("a cat")) == 1
    for action in (lambda: model.encode(TEXTS), lambda: model.encode("a cat", precision="2bit")):
        assert refusal(pack, action) == REPLACED


def test_codebook_of_another_model_is_refused(pack: Path) -> None:
    model = open_pack(pack)
    replace_by_another_model(pack)
    file = pack / "calibration/default.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert refusal(pack, lambda: model.encode("a cat", precision="2bit")) == REPLACED


def test_weights_that_change_below_an_open_pack(pack: Path) -> None:
    """The manifest is the same: not replaced, but damaged."""
    model = open_pack(pack)
    weights = (pack / "weights/fp32.bin").read_bytes()
    (pack / "new").write_bytes(bytes([weights[0] ^ 1]) + weights[1:])
    os.replace(pack / "new", pack / "weights/fp32.bin")
    message = refusal(pack, lambda: model.encode(TEXTS))
    assert message.startswith("PACK/weights/fp32.bin: expected sha256 ")


def test_pack_opened_by_a_link_stays_open_when_the_link_moves(pack: Path) -> None:
    link = pack.parent / "current"
    link.symlink_to(pack)
    model = open_pack(link)
    before = model.encode(TEXTS[:1]).codes
    shutil.copytree(pack, pack.parent / "next")
    replace_by_another_model(pack.parent / "next")
    link.unlink()
    link.symlink_to(pack.parent / "next")
    assert len(model.encode(TEXTS)) == len(TEXTS)
    assert np.array_equal(model.encode(TEXTS[:1]).codes, before)


def test_relative_path_and_a_change_of_the_working_directory(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pack.parent)
    model = open_pack(Path("pack"))
    monkeypatch.chdir("/")
    assert len(model.encode(TEXTS, precision="2bit")) == len(TEXTS)
    assert model.pack.folder == pack
