"""Temporary files and folders: locked while in use, removed when their process is dead."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from embedpack.storage.atomic import atomic_file
from embedpack.storage.temporary import REPLACED, remove_leftovers, temporary_file, temporary_folder

DEAD = "0123456789abcdef"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_file(folder: Path, name: str = "out.bin") -> Path:
    path = folder / f".{name}.{DEAD}.embedpack"
    path.write_bytes(b"half")
    return path


def dead_folder(folder: Path, name: str = "pack") -> Path:
    path = folder / f".{name}.{DEAD}.embedpack"
    (path / "pack" / "report").mkdir(parents=True)
    (path / "pack" / "report" / "page.html").write_text("half")
    return path


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    dead_file(tmp_path)
    dead_folder(tmp_path)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_new_file_removes_them(tmp_path: Path) -> None:
    dead_file(tmp_path)
    with atomic_file(tmp_path / "out.bin") as stream:
        stream.write(b"whole")
    assert names(tmp_path) == ["out.bin"]


def test_living_files_and_folders_stay_whatever_the_clock_shows(tmp_path: Path) -> None:
    with temporary_file(tmp_path / "out.bin", 0o666) as stream, temporary_folder(tmp_path / "pack") as folder:
        for path in (stream.name, folder, folder / "lock"):
            os.utime(path, (0, 0))
        code = "import sys; from embedpack.storage.temporary import *; remove_leftovers(Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted([Path(stream.name).name, folder.name])
    assert names(tmp_path) == [Path(stream.name).name]
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_other_entries_stay(tmp_path: Path) -> None:
    (tmp_path / f".out.bin.{DEAD}").write_text("")
    (tmp_path / f"out.bin.{DEAD}.embedpack").write_text("")
    (tmp_path / ".out.bin.123.embedpack").write_text("")
    (tmp_path / "target").mkdir()
    (tmp_path / f".link.{DEAD}.embedpack").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / f".pipe.{DEAD}.embedpack")
    before = names(tmp_path)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == before
    assert names(tmp_path / "target") == []


def test_links_in_a_leftover_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (dead_folder(tmp_path) / "link").symlink_to(tmp_path / "thesis")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["thesis"]
    assert names(tmp_path / "thesis") == ["chapter.tex"]


def test_leftovers_of_other_users_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dead_file(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("replaced", [False, True], ids=["its place is empty", "its place is taken"])
def test_a_folder_that_stepped_aside_comes_back(tmp_path: Path, replaced: bool) -> None:
    (dead_folder(tmp_path) / REPLACED / "pack").mkdir(parents=True)
    (tmp_path / f".pack.{DEAD}.embedpack" / REPLACED / "pack" / "pack.json").write_text("old")
    if replaced:
        (tmp_path / "pack").mkdir()
        (tmp_path / "pack" / "pack.json").write_text("new")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["pack"]
    assert (tmp_path / "pack" / "pack.json").read_text() == ("new" if replaced else "old")


def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    left = dead_file(tmp_path)
    with atomic_file(tmp_path / "out.bin"):
        pass
    with temporary_folder(tmp_path / "pack"):
        pass
    assert names(tmp_path) == [left.name, "out.bin"]


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, first = fcntl.flock, threading.Event()

    def late(stream: IO[bytes], operation: int) -> None:
        if not first.is_set():
            first.set()
            remove_leftovers(tmp_path)
        flock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with temporary_folder(tmp_path / "pack") as folder:
        assert names(tmp_path) == [folder.name]
        assert names(folder) == ["lock"]
    first.clear()
    with temporary_file(tmp_path / "out.bin", 0o666) as stream:
        assert names(tmp_path) == [Path(stream.name).name]


def test_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125)
    with atomic_file(path):
        pass
    assert names(tmp_path) == [path.name]


def test_everything_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def log_replace(source: str, target: Path) -> None:
        steps.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "replace", log_replace)
    with atomic_file(tmp_path / "out.bin") as stream:
        stream.write(b"whole")
    assert steps == ["file", "name", "folder"]


def test_the_umask_of_the_process_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(mask: int) -> int:
        raise AssertionError(f"umask({mask})")

    monkeypatch.setattr(os, "umask", refuse)
    with atomic_file(tmp_path / "out.bin"):
        pass
