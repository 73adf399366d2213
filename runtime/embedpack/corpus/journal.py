"""Journal of a run in shards: the run in its first line, then a line for each shard that is on the disk.

A line is added once its shard has its name. So a run that ends in between makes at most that shard again, under the
same name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from embedpack.errors import InputError, failed
from embedpack.storage.atomic import atomic_file, disk_errors

T = TypeVar("T")

MAX_BYTES = 256_000_000


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides the content of the shards.

    Attributes:
        pack, inputs: sha256 of the manifest of the pack, and of the inputs.
        variant: variant of the pack.
        settings: options of the vectors.
        shard_size: number of inputs of a shard.
    """

    pack: str
    variant: str
    settings: dict[str, Any]
    inputs: str
    shard_size: int


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shard that is done: its number and its vectors; one without vectors has no file."""

    shard: int
    vectors: int


class Journal:
    """The journal of a run at `path`; `done` has the finished shards by number."""

    def __init__(self, path: Path, done: Mapping[int, Shard]) -> None:
        self._path = path
        self.done = dict(done)

    @classmethod
    def begin(cls, path: Path, run: Run) -> Journal:
        """Begin a run; errors as of `disk_errors`."""
        with atomic_file(path) as stream:
            stream.write(msgspec.json.encode(run) + b"\n")
        return cls(path, {})

    @classmethod
    def resume(cls, path: Path, run: Run) -> Journal:
        """Go on with a run; a line that was cut off is dropped.

        InputError: the journal is not one, or that of another run.
        """
        first, *others = _lines(path)
        _check_run(path, _decoded(path, first, Run), run)
        shards = [_decoded(path, line, Shard) for line in others]
        return cls(path, {shard.shard: shard for shard in shards})

    def add(self, shard: Shard) -> None:
        """Write that a shard is done; errors as of `disk_errors`."""
        with disk_errors(self._path), self._path.open("ab") as stream:
            stream.write(msgspec.json.encode(shard) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.done[shard.shard] = shard


def _lines(path: Path) -> list[bytes]:
    """Whole lines of a journal, at least one; what stands behind the last of them is cut off in the file."""
    try:
        with path.open("r+b") as stream:
            content = stream.read(MAX_BYTES + 1)
            end = content.rfind(b"\n") + 1
            if len(content) <= MAX_BYTES and end:
                stream.truncate(end)
    except OSError as cause:
        raise InputError(f"{path}: {failed('read', cause)}") from cause
    if len(content) > MAX_BYTES or not end:
        raise InputError(f"{path}: is no journal of embed; pass --overwrite to begin again")
    return content[:end].splitlines()


def _decoded(path: Path, line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise InputError(f"{path}: is no journal of embed: {cause}; pass --overwrite to begin again") from cause


def _check_run(path: Path, found: Run, wanted: Run) -> None:
    """Raise InputError if two runs differ, with the first difference."""
    before, now = msgspec.to_builtins(found), msgspec.to_builtins(wanted)
    for name in Run.__struct_fields__:
        if before[name] == now[name]:
            continue
        what = f"another {name}"
        if name == "settings":
            keys = [key for key in {**before[name], **now[name]} if before[name].get(key) != now[name].get(key)]
            what = f"{keys[0]} {before[name].get(keys[0])!r}, not {now[name].get(keys[0])!r}"
        raise InputError(f"{path}: the run that was begun has {what}; repeat its command, or pass --overwrite")
