"""Graphs that were prepared for this host: where they lie, and whether they may be used.

`embedpack prepare` saves a graph together with the copies of its weights that products read. onnxruntime maps them, so
they are loaded fast and shared between processes. They fit one CPU and one onnxruntime only, which is why they lie in
the user's cache and not in the pack. Products of 4-bit blocks cannot be saved like this; of their graphs only the
fastest batches are written down.

Whoever could write to the cache could change vectors unseen: it must belong to the user, and be writable by nobody
else. A prepared graph that is damaged, or was made for something else, is not used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnxruntime as ort

from embedpack.engine.session import SAVED_WEIGHTS
from embedpack.errors import PackError
from embedpack.host.cpu import cpu_identity
from embedpack.host.user_cache import user_cache
from embedpack.pack.folder import Pack, describe_file
from embedpack.pack.manifest import FileEntry, Sha256, Strict

logger = logging.getLogger("embedpack")

# A folder in place of the user's own; empty: nothing prepared is used.
CACHE_VARIABLE = "EMBEDPACK_CACHE"
RECORD = "prepared.json"
GRAPH = "graph.onnx"
FILES = (GRAPH, SAVED_WEIGHTS)
MAX_RECORD_BYTES = 100_000
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


class Identity(Strict, frozen=True):
    """What a prepared graph was made of and for.

    Attributes:
        graph: digest of the pack's graph.
        weights: digests of its weights.
        onnxruntime: release.
        cpu: see `embedpack.host.cpu`.
    """

    graph: Sha256
    weights: tuple[Sha256, ...]
    onnxruntime: str
    cpu: str

    @property
    def key(self) -> str:
        """Name of its folder."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class Record(Strict, frozen=True):
    """Content of prepared.json.

    Attributes:
        identity: see there.
        files: of the folder; none where the graph cannot be saved.
        token_budgets: the fastest budget of a batch, by the number of threads.
    """

    identity: Identity
    files: dict[str, FileEntry]
    token_budgets: dict[str, int]


@dataclass(frozen=True)
class PreparedGraph:
    """A prepared graph that may be used."""

    folder: Path
    record: Record

    @property
    def path(self) -> Path | None:
        """The graph's file; None: it could not be saved, the pack's own is to be used."""
        return self.folder / GRAPH if self.record.files else None

    def token_budget(self, threads: int) -> int | None:
        """The fastest budget of a batch; None: not measured with that many threads."""
        return self.record.token_budgets.get(str(threads))


def cache_folder() -> Path | None:
    """Folder of prepared graphs: below $EMBEDPACK_CACHE, else below the user's cache; None: there is none."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is not None:
        return Path(chosen) / "prepared" if chosen else None
    cache = user_cache()
    return None if cache is None else cache / "prepared"


def identity_of(pack: Pack, graph: str, external_data: Iterable[str]) -> Identity:
    """Identity of one of a pack's graphs on this host."""
    files = pack.manifest.files
    return Identity(
        graph=files[graph].sha256,
        weights=tuple(files[name].sha256 for name in external_data),
        onnxruntime=ort.__version__,
        cpu=cpu_identity(),
    )


def find_prepared(cache: Path, identity: Identity) -> PreparedGraph | None:
    """The prepared graph, if there is one that may be used; one that may not is told in the log."""
    folder = cache / identity.key
    if not os.path.lexists(folder):
        return None
    try:
        return read_prepared(folder, identity)
    except (PackError, OSError) as cause:
        logger.warning("%s; it is not used: run embedpack prepare again", cause)
        return None


def read_prepared(folder: Path, identity: Identity) -> PreparedGraph:
    """Open a prepared graph. Of its weights only the size is checked, as of a pack's.

    Raises:
        PackError: it is damaged, was made for something else, or others may write to it.
    """
    for path in (folder.parent, folder, folder / RECORD):
        check_private(path)
    record = _read_record(folder / RECORD)
    if record.identity != identity:
        raise PackError(f"{folder / RECORD}: made for another graph, CPU or onnxruntime")
    if set(record.files) not in (set(FILES), set()):
        raise PackError(f"{folder / RECORD}: names other files than {', '.join(FILES)}")
    for name, entry in record.files.items():
        check_private(folder / name)
        found = (folder / name).stat().st_size
        if found != entry.bytes:
            raise PackError(f"{folder / name}: expected {entry.bytes} bytes, found {found}")
    if record.files and describe_file(folder / GRAPH) != record.files[GRAPH]:
        raise PackError(f"{folder / GRAPH}: changed since it was prepared")
    return PreparedGraph(folder, record)


def check_private(path: Path) -> None:
    """Refuse a file or a folder that somebody else could have written.

    Raises:
        PackError: it is missing, a link, of another user, or writable by others.
    """
    try:
        found = path.lstat()
    except OSError as cause:
        raise PackError(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    if stat.S_ISLNK(found.st_mode):
        raise PackError(f"{path}: a symbolic link")
    # Windows knows neither of both.
    if hasattr(os, "geteuid"):
        if found.st_uid != os.geteuid():
            raise PackError(f"{path}: belongs to another user")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PackError(f"{path}: others may write to it")


def _read_record(path: Path) -> Record:
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise PackError(f"{path}: {path.stat().st_size} bytes; a record has at most {MAX_RECORD_BYTES}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise PackError(f"{path}: {cause}") from cause
