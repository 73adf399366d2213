"""Digests of files. That of a large file is computed once and remembered in the user's cache until the file changes.

A mark in the cache is an empty file, named by the digest of the file's path, state and sha256. Nobody else may write to
their folder, else they are not used.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from embedpack.errors import PackError
from embedpack.host.user_cache import CACHE_FOLDER, PRIVATE_FOLDER, check_folders_above, check_private, runtime_cache
from embedpack.pack.manifest import FileEntry

logger = logging.getLogger("embedpack")

MARKS = "digests"
# Smaller files are read each time: sha256 takes about 1 ms per MB.
MIN_REMEMBERED_BYTES = 64_000_000
# A file that was written more recently may change again within one tick of its clock.
MIN_AGE_SECONDS = 2.0


@dataclass(frozen=True)
class FileState:
    """Identity of the content of a file as far as the system reports it without reading.

    `modified` and `changed` are the times of the last change of the content and of the status, in nanoseconds.
    """

    device: int
    inode: int
    modified: int
    changed: int
    bytes: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """State of a file now."""
        status = path.stat()
        return cls(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def describe_file(path: Path) -> FileEntry:
    """Digest and size of a file."""
    with path.open("rb") as stream:
        return FileEntry(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=path.stat().st_size)


def checked_entry(path: Path, expected: FileEntry) -> FileEntry:
    """Digest and size of a file; of a large file that was found as expected before and did not change, `expected`."""
    state = FileState.of(path)
    mark = None if state.bytes < MIN_REMEMBERED_BYTES else _mark(path, state, expected)
    if mark is not None and _is_marked(mark):
        return expected
    entry = describe_file(path)
    settled = time.time() - state.modified / 1e9 > MIN_AGE_SECONDS and FileState.of(path) == state
    if mark is not None and entry == expected and settled:
        _write_mark(mark)
    return entry


def _mark(path: Path, state: FileState, expected: FileEntry) -> Path | None:
    cache = runtime_cache()
    if cache is None:
        return None
    content = repr((str(path.resolve()), astuple(state), expected.sha256))
    return cache / MARKS / hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _is_marked(mark: Path) -> bool:
    try:
        check_private(mark.parent)
        check_private(mark)
        check_folders_above(mark.parent)
    except PackError:
        return False
    return True


def _write_mark(mark: Path) -> None:
    try:
        mark.parent.parent.mkdir(CACHE_FOLDER, parents=True, exist_ok=True)
        mark.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        mark.touch(0o600)
    except OSError as cause:
        logger.debug("%s: checked digests cannot be remembered: %s", mark.parent, cause.strerror or cause)
