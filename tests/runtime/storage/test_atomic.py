"""Atomic writes: a file is complete or absent."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from embedpack import CapacityError, EmbedpackError, InputError, PackError
from embedpack.storage.atomic import atomic_file, check_new_file, disk_errors


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.bin"


def test_file_appears_at_the_end(path: Path) -> None:
    with atomic_file(path) as stream:
        stream.write(b"whole")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["out.bin"]


def test_file_is_replaced(path: Path) -> None:
    path.write_bytes(b"old")
    with atomic_file(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_file_has_the_usual_permissions(path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_file(path):
            pass
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
        assert os.umask(mask) == mask
    finally:
        os.umask(before)


@pytest.mark.parametrize("error", [ValueError("?"), PackError("?"), KeyboardInterrupt(), SystemExit()])
def test_nothing_is_left_after_an_error(path: Path, error: BaseException) -> None:
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_file(path) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert names(path.parent) == ["out.bin"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(path: Path, code: int) -> None:
    with pytest.raises(CapacityError) as caught, atomic_file(path):
        raise OSError(code, os.strerror(code))
    assert str(caught.value) == f"{path}: the disk is full; free some space or write elsewhere"
    assert names(path.parent) == []


def test_disk_that_fills_when_the_file_is_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CapacityError), atomic_file(path) as stream:
        stream.write(b"whole")
    assert names(path.parent) == []


def test_folder_without_permission(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("embedpack.storage.atomic.temporary_file", denied)
    with pytest.raises(InputError) as caught, atomic_file(path):
        pass
    assert (
        str(caught.value)
        == f"{path}: cannot be written: Permission denied; check the path, its permissions and the disk"
    )


def test_missing_folder(path: Path) -> None:
    inside = path / "missing" / "out.bin"
    with pytest.raises(InputError) as caught, atomic_file(inside):
        pass
    assert (
        str(caught.value)
        == f"{inside}: cannot be written: No such file or directory; check the path, its permissions and the disk"
    )


def test_folder_at_the_place_of_the_file(path: Path) -> None:
    path.mkdir()
    with pytest.raises(InputError) as caught, atomic_file(path) as stream:
        stream.write(b"whole")
    assert (
        str(caught.value) == f"{path}: cannot be written: Is a directory; check the path, its permissions and the disk"
    )
    assert names(path.parent) == ["out.bin"]


def test_a_new_file_is_tried_before_the_work(path: Path) -> None:
    check_new_file(path)
    path.write_bytes(b"old")
    check_new_file(path)
    assert path.read_bytes() == b"old"
    assert names(path.parent) == ["out.bin"]


def test_files_that_cannot_be_written_are_refused_before_the_work(path: Path) -> None:
    with pytest.raises(InputError, match=r"missing/out\.bin: cannot be written: No such file or directory"):
        check_new_file(path.parent / "missing" / "out.bin")
    path.mkdir()
    with pytest.raises(InputError, match=r"out\.bin: cannot be written: Is a directory"):
        check_new_file(path)
    with pytest.raises(InputError, match=r"cannot be written"):
        check_new_file(Path("/proc/out.bin"))


def test_error_without_a_number_is_told_as_it_is(path: Path) -> None:
    with pytest.raises(InputError) as caught, disk_errors(path):
        raise OSError("the network share went away")
    assert (
        str(caught.value)
        == f"{path}: cannot be written: the network share went away; check the path, its permissions and the disk"
    )


def test_error_of_another_kind_passes(path: Path) -> None:
    with pytest.raises(EmbedpackError) as caught, disk_errors(path):
        raise EmbedpackError("own")
    assert str(caught.value) == "own"


def test_null_character_in_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a\0b"
    with pytest.raises(InputError, match=r"null character; choose another name$"), atomic_file(path):
        pass
    with pytest.raises(InputError, match=r"null character; choose another name$"):
        check_new_file(path)
