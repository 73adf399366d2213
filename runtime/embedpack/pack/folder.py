"""The folder of a pack: open it, read its files with their digests checked, write its manifest.

A pack is one plain folder. pack.json names every file with its digest and size; no other file belongs to the pack.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from embedpack.errors import PackError
from embedpack.pack.manifest import FORMAT, MANIFEST_NAME, MAX_MANIFEST_BYTES, FileEntry, Manifest
from embedpack.pack.rules import bad_paths, contradictions
from embedpack.storage.atomic import atomic_file
from embedpack.storage.safetensors import unique_keys


@dataclass(frozen=True)
class Pack:
    """An opened pack: its folder and its checked manifest."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Path of one of the pack's files, once it is known to be a plain file of the stated size.

        Raises:
            PackError: the file is missing, a symbolic link, or of another size.
        """
        path = self.folder / name
        for part in (path, *path.parents):
            if part == self.folder:
                break
            _refuse_link(path, part)
        if not path.is_file():
            raise PackError(f"{path}: missing, though {MANIFEST_NAME} names it; copy the pack again")
        expected, found = self.manifest.files[name].bytes, path.stat().st_size
        if found != expected:
            raise PackError(f"{path}: expected {expected} bytes, found {found}; copy the pack again")
        return path

    def read(self, name: str) -> bytes:
        """Content of one of the pack's files, its digest checked.

        Raises:
            PackError: as `path`, or the digest differs.
        """
        path = self.path(name)
        with _reading(path):
            content = path.read_bytes()
        self._check_digest(path, name, hashlib.sha256(content).hexdigest())
        return content

    def check_files(self) -> Iterator[str]:
        """Check size and digest of every file, then that there are no others; yields each name once it is checked.

        Raises:
            PackError: a file is missing, changed, a link, or not named in the manifest.
        """
        for name in self.manifest.files:
            path = self.path(name)
            with _reading(path), path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            self._check_digest(path, name, digest)
            yield name
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if (path.is_symlink() or not path.is_dir()) and name != MANIFEST_NAME and name not in self.manifest.files:
                raise PackError(f"{path}: {MANIFEST_NAME} does not name this file; remove it")

    def _check_digest(self, path: Path, name: str, found: str) -> None:
        expected = self.manifest.files[name].sha256
        if found != expected:
            raise PackError(f"{path}: expected sha256 {expected[:16]}…, found {found[:16]}…; copy the pack again")


def read_pack(folder: str | Path) -> Pack:
    """Open a pack: read and check its manifest. Files are checked when they are asked for.

    Raises:
        PackError: the folder is no pack, or its manifest is not valid.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    manifest = _convert(path, _read_json(folder, path))
    for problem in contradictions(manifest):
        raise PackError(f"{path}: {problem}")
    return Pack(folder, manifest)


def listed_files(folder: Path) -> frozenset[str]:
    """Names of the files that a pack lists, also one of another minor format, whose manifest says other things.

    Raises:
        PackError: the folder is no pack.
    """
    path = folder / MANIFEST_NAME
    value = _read_json(folder, path)
    _check_format(path, value)
    if not isinstance(value, dict) or not {"format", "files"} <= set(value):
        raise PackError(f"{path}: no manifest of a pack")
    try:
        files = msgspec.convert(value["files"], dict[str, FileEntry])
    except msgspec.ValidationError as cause:
        raise PackError(f"{path}: {cause} - at `$.files`") from cause
    for problem in bad_paths(files):
        raise PackError(f"{path}: {problem}")
    return frozenset(files)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write pack.json; the same manifest always gives the same bytes."""
    text = json.dumps(msgspec.to_builtins(manifest), indent=1, ensure_ascii=False)
    with atomic_file(folder / MANIFEST_NAME) as stream:
        stream.write(text.encode() + b"\n")


def describe_file(path: Path) -> FileEntry:
    """Digest and size of a file."""
    with path.open("rb") as stream:
        return FileEntry(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=path.stat().st_size)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise PackError(f"{path}: cannot be read: {cause.strerror or cause}") from cause


def _refuse_link(path: Path, part: Path) -> None:
    if part.is_symlink():
        raise PackError(f"{path}: {part.name!r} is a symbolic link; copy the pack with its links resolved")


def _read_json(folder: Path, path: Path) -> Any:
    """The JSON of a manifest; nothing of what it says is checked."""
    if not path.is_file():
        raise PackError(f"{folder}: no pack here ({MANIFEST_NAME} is missing); make one with: embedpack export")
    _refuse_link(path, path)
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise PackError(f"{path}: {path.stat().st_size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}")
    with _reading(path):
        content = path.read_bytes()
    try:
        return json.loads(
            content.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as cause:
        raise PackError(f"{path}: not UTF-8 at byte {cause.start}; copy the pack again") from cause
    except RecursionError as cause:
        raise PackError(f"{path}: nested too deeply to be a manifest") from cause
    except ValueError as cause:
        raise PackError(f"{path}: not valid JSON: {cause}") from cause


def _convert(path: Path, value: Any) -> Manifest:
    _check_format(path, value)
    try:
        return msgspec.convert(value, Manifest)
    except msgspec.ValidationError as cause:
        version = value.get("format", FORMAT) if isinstance(value, dict) else FORMAT
        newer = "" if version == FORMAT else f" (format {version}, this embedpack writes {FORMAT})"
        raise PackError(f"{path}: {cause}{newer}") from cause


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    # float() reads 1e999 as infinity.
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def _check_format(path: Path, value: object) -> None:
    if not isinstance(value, dict) or "format" not in value:
        return  # the conversion to a Manifest says what is missing
    version = value["format"]
    major = FORMAT.partition(".")[0]
    if not isinstance(version, str) or not re.fullmatch(rf"{major}\.[0-9]+", version, re.ASCII):
        raise PackError(f"{path}: format {version!r} at `$.format`; this embedpack reads {FORMAT}: update one of them")
