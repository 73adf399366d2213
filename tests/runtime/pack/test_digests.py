"""Digests of large files are computed once, until the file changes; cached digests of other users are ignored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedpack import Embedder
from embedpack.pack import digests
from embedpack.pack.digests import checked_entry, describe_file
from embedpack.pack.manifest import FileEntry
from tests.helpers.broken_packs import refusal


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; every file is large."""
    monkeypatch.setenv("EMBEDPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "MIN_REMEMBERED_BYTES", 10)
    return tmp_path / "cache" / "digests"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that have been read."""
    names: list[str] = []
    original = digests.describe_file

    def describe(path: Path) -> FileEntry:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(digests, "describe_file", describe)
    return names


def old_file(path: Path, content: bytes = b"0123456789") -> Path:
    """A file that was written a minute ago."""
    path.write_bytes(content)
    os.utime(path, (path.stat().st_mtime - 60,) * 2)
    return path


def test_large_file_is_read_once(tmp_path: Path, cache: Path, hashed: list[str]) -> None:
    path = old_file(tmp_path / "weights.bin")
    entry = describe_file(path)
    assert [checked_entry(path, entry) for _ in range(3)] == [entry] * 3
    assert hashed == ["weights.bin"]
    assert [mark.stat().st_size for mark in cache.iterdir()] == [0]
    assert cache.stat().st_mode & 0o777 == 0o700


def test_small_file_is_read_each_time(tmp_path: Path, cache: Path, hashed: list[str]) -> None:
    path = old_file(tmp_path / "graph.onnx", b"small")
    entry = describe_file(path)
    assert [checked_entry(path, entry) for _ in range(2)] == [entry] * 2
    assert hashed == ["graph.onnx"] * 2
    assert not cache.exists()


@pytest.mark.parametrize("keep_times", [False, True])
def test_changed_file_is_read_again(tmp_path: Path, cache: Path, keep_times: bool) -> None:
    """Even if its time of modification is set back, as that of its status is not."""
    path = old_file(tmp_path / "weights.bin")
    entry, before = describe_file(path), path.stat()
    assert checked_entry(path, entry) == entry
    path.write_bytes(b"0123456780")
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert entry != checked_entry(path, entry) == describe_file(path)


def test_wrong_or_fresh_file_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    wrong = old_file(tmp_path / "wrong.bin")
    checked_entry(wrong, describe_file(old_file(tmp_path / "other.bin", b"9876543210")))
    fresh = tmp_path / "fresh.bin"
    fresh.write_bytes(b"0123456789")
    checked_entry(fresh, describe_file(fresh))
    assert not cache.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system has no owners")
def test_marks_that_others_could_write_do_not_count(tmp_path: Path, cache: Path, hashed: list[str]) -> None:
    path = old_file(tmp_path / "weights.bin")
    entry = describe_file(path)
    checked_entry(path, entry)
    cache.chmod(0o777)
    checked_entry(path, entry)
    assert len(hashed) == 2


def test_without_a_cache_nothing_is_remembered(
    tmp_path: Path, cache: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = old_file(tmp_path / "weights.bin")
    entry = describe_file(path)
    (tmp_path / "file").write_text("no folder")
    for value in ("", str(tmp_path / "file")):
        monkeypatch.setenv("EMBEDPACK_CACHE", value)
        assert checked_entry(path, entry) == entry
    assert len(hashed) == 2
    assert not cache.exists()


def test_wrong_large_weights_are_found_in_spite_of_the_mark_of_the_right_ones(pack: Path, cache: Path) -> None:
    weights = pack / "weights/fp32.bin"
    old_file(weights, weights.read_bytes())
    Embedder(pack, weights="fp32", threads=1)
    assert list(cache.iterdir())
    weights.write_bytes(bytes(weights.stat().st_size))
    assert refusal(pack, lambda: Embedder(pack, weights="fp32", threads=1)).startswith("PACK/weights/fp32.bin: expect")
