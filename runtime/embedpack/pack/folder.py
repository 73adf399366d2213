"""Folder of a pack: open it, read its files and check their digests, write its manifest.

A pack is one plain folder. pack.json lists every file with digest and size; the folder has no other files.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from embedpack.errors import PackError, failed
from embedpack.pack.digests import FileState, checked_entry, describe_file
from embedpack.pack.manifest import FORMAT, MANIFEST_NAME, MAX_MANIFEST_BYTES, FileEntry, Manifest
from embedpack.pack.rules import bad_paths, contradictions
from embedpack.pack.upgrade import upgraded
from embedpack.storage.atomic import atomic_file
from embedpack.storage.safetensors import unique_keys


@dataclass(frozen=True)
class Pack:
    """An opened pack: its folder, an absolute path without links, and its validated manifest.

    Files are opened at different times, the graph of images at the first image. If the pack is replaced meanwhile, they
    no longer have the digests of the manifest, which is read once: so files of two packs are never mixed. `states` are
    those of the files whose digests have been checked, by name. `format` is that of the file, which may be an older one
    than that of the manifest.
    """

    folder: Path
    manifest: Manifest
    manifest_sha256: str
    format: str
    states: dict[str, FileState] = field(default_factory=dict, compare=False, repr=False)

    def path(self, name: str) -> Path:
        """Path of a file of the pack; PackError if it is missing, a symbolic link, or of another size than listed."""
        path = self.folder / name
        for part in (path, *path.parents):
            if part == self.folder:
                break
            _check_no_link(path, part)
        with _reading(path):
            if not path.is_file():
                raise self._error(f"{path}: missing, though listed in {MANIFEST_NAME}; copy the pack again")
            expected, size = self.manifest.files[name].bytes, path.stat().st_size
        if size != expected:
            raise self._error(f"{path}: expected {expected} bytes, found {size}; copy the pack again")
        return path

    def read(self, name: str) -> bytes:
        """Read a file of the pack; PackError as `path`, or if the digest differs."""
        path = self.path(name)
        with _reading(path):
            content = path.read_bytes()
        self._check_digest(path, name, hashlib.sha256(content).hexdigest())
        return content

    def checked_path(self, name: str) -> Path:
        """Path of a file after a check of its digest, which is computed again only if the file has changed."""
        path, expected = self.path(name), self.manifest.files[name]
        with _reading(path):
            state = FileState.of(path)
            if self.states.get(name) != state:
                self._check_digest(path, name, checked_entry(path, expected).sha256)
                self.states[name] = state
        return path

    def check_file(self, name: str) -> None:
        """Check a file as `read` does, without holding it in memory."""
        path = self.path(name)
        with _reading(path):
            self._check_digest(path, name, describe_file(path).sha256)

    def check_files(self) -> Iterator[str]:
        """Check every file as `read` does, then that there are no others (PackError); yield each name once checked."""
        for name in self.manifest.files:
            self.check_file(name)
            yield name
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if (path.is_symlink() or not path.is_dir()) and name != MANIFEST_NAME and name not in self.manifest.files:
                raise PackError(f"{path}: not listed in {MANIFEST_NAME}; remove it")

    def _check_digest(self, path: Path, name: str, digest: str) -> None:
        expected = self.manifest.files[name].sha256
        if digest != expected:
            raise self._error(f"{path}: expected sha256 {expected[:16]}…, found {digest[:16]}…; copy the pack again")

    def _error(self, message: str) -> PackError:
        """Error for a file that differs from the manifest: the message, or that the pack was replaced since."""
        try:
            replaced = describe_file(self.folder / MANIFEST_NAME).sha256 != self.manifest_sha256
        except OSError:
            replaced = True
        if replaced:
            message = f"{self.folder}: the pack was replaced or removed while it was open; open it again"
        return PackError(message)


def read_pack(folder: str | Path) -> Pack:
    """Open a pack; PackError if its manifest is missing or invalid. Other files are checked when they are opened."""
    with _reading(Path(folder)):
        # The pack stays open if the working directory changes, or a link to its folder.
        folder = Path(folder).resolve()
    path = folder / MANIFEST_NAME
    content = _read_content(folder, path)
    value = _parse(path, content)
    version = value.get("format", FORMAT) if isinstance(value, dict) else FORMAT
    try:
        manifest = upgraded(value) if _is_older(version) else msgspec.convert(value, Manifest)
    except msgspec.ValidationError as cause:
        newer = "" if version == FORMAT else f" (format {version}, this embedpack writes {FORMAT})"
        raise PackError(f"{path}: {cause}{newer}") from cause
    for problem in contradictions(manifest):
        older = f" (format {version}, read as {FORMAT})" if _is_older(version) else ""
        raise PackError(f"{path}: {problem}{older}")
    return Pack(folder, manifest, hashlib.sha256(content).hexdigest(), version)


def listed_files(folder: Path) -> frozenset[str]:
    """Names of the files of a pack, also of another minor format version, whose other fields may differ.

    PackError if the folder is not a pack.
    """
    path = folder / MANIFEST_NAME
    value = _parse(path, _read_content(folder, path))
    if not isinstance(value, dict) or not {"format", "files"} <= set(value):
        raise PackError(f"{path}: not the manifest of a pack; pass the folder that `embedpack export` wrote")
    try:
        files = msgspec.convert(value["files"], dict[str, FileEntry])
    except msgspec.ValidationError as cause:
        raise PackError(f"{path}: {cause} - at `$.files`") from cause
    for problem in bad_paths(files):
        raise PackError(f"{path}: {problem}")
    return frozenset(files)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write pack.json; equal manifests give equal bytes."""
    text = json.dumps(msgspec.to_builtins(manifest), indent=1, ensure_ascii=False)
    with atomic_file(folder / MANIFEST_NAME) as stream:
        stream.write(text.encode() + b"\n")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise PackError(f"{path}: {failed('read', cause)}") from cause
    except (ValueError, RuntimeError) as cause:  # a null character; a loop of links
        raise PackError(f"{str(path)!r}: {failed('read', cause)}") from cause


def _check_no_link(path: Path, part: Path) -> None:
    with _reading(path):
        is_link = part.is_symlink()
    if is_link:
        raise PackError(f"{path}: {part.name!r} is a symbolic link; copy the pack with its links resolved")


def _read_content(folder: Path, path: Path) -> bytes:
    """Content of a manifest."""
    with _reading(path):
        if not path.is_file():
            raise PackError(f"{folder}: not a pack ({MANIFEST_NAME} is missing); create one with: embedpack export")
        _check_no_link(path, path)
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise PackError(f"{path}: {path.stat().st_size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}")
        return path.read_bytes()


def _parse(path: Path, content: bytes) -> Any:
    """Parse the JSON of a manifest; of its fields only `format` is checked."""
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=_no_constant, parse_float=_finite
        )
        if re.search(rb"\\u[dD][89a-fA-F]", content):
            # A half of a surrogate pair cannot be printed, written or be a file name.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as cause:
        raise PackError(f"{path}: not UTF-8 at byte {cause.start}; copy the pack again") from cause
    except UnicodeEncodeError as cause:
        raise PackError(f"{path}: a string has half of a surrogate pair; copy the pack again") from cause
    except RecursionError as cause:
        raise PackError(f"{path}: nested too deeply to be a manifest") from cause
    except ValueError as cause:
        raise PackError(f"{path}: not valid JSON: {cause}") from cause
    _check_format(path, value)
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    # float() reads 1e999 as infinity.
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def _check_format(path: Path, value: object) -> None:
    if not isinstance(value, dict) or "format" not in value:
        return  # the conversion to a Manifest raises the error
    version = value["format"]
    if not isinstance(version, str) or not re.fullmatch(r"[23]\.[0-9]+", version, re.ASCII):
        raise PackError(
            f"{path}: format {version!r} at `$.format`; this embedpack reads 2.0 to {FORMAT}; "
            "update it, or export again"
        )


def _is_older(version: str) -> bool:
    return version.startswith("2.")
