"""Cache of the prepacked graphs of `embedpack prepare`.

A prepacked graph is saved with the packed copies of the weights of matrix products. onnxruntime maps both, so they load
fast and processes share them. They fit one CPU and one onnxruntime release only, so they are in the user's cache, not
in the pack. Products with 4-bit blocks cannot be saved; for graphs with them, only the fastest token budgets are kept.

Anybody who can write to the cache can change vectors unnoticed, so it must belong to the user and be writable by
nobody else. A prepacked graph that is damaged, or that was made for another host or graph, is not used.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embedpack.engine.session import SAVED_WEIGHTS
from embedpack.errors import PackError
from embedpack.host.user_cache import check_folders_above, check_private, runtime_cache
from embedpack.pack.digests import checked_entry, describe_file
from embedpack.pack.manifest import FileEntry
from embedpack.pack.strict import Sha256, Strict

logger = logging.getLogger("embedpack")

RECORD = "prepared.json"
GRAPH = "graph.onnx"
FILES = (GRAPH, SAVED_WEIGHTS)
MAX_RECORD_BYTES = 100_000


class Identity(Strict, frozen=True):
    """Source and host of a prepacked graph: the digests of graph and weights, onnxruntime's release, the CPU."""

    graph: Sha256
    weights: dict[str, Sha256]
    onnxruntime: str
    cpu: str

    @property
    def key(self) -> str:
        """Name of the folder in the cache."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class Record(Strict, frozen=True):
    """Content of prepared.json; without `files` the graph cannot be saved. `token_budgets` are by number of threads."""

    identity: Identity
    files: dict[str, FileEntry]
    token_budgets: dict[str, int]


@dataclass(frozen=True)
class PreparedGraph:
    """A prepacked graph that has passed the checks of `read_prepared`."""

    folder: Path
    record: Record

    @property
    def path(self) -> Path | None:
        """Path of the graph; None: it could not be saved, use that of the pack."""
        return self.folder / GRAPH if self.record.files else None

    def token_budget(self, threads: int) -> int | None:
        """Fastest token budget; None: not measured with this number of threads."""
        return self.record.token_budgets.get(str(threads))


def cache_folder() -> Path | None:
    """Folder of prepacked graphs: below $EMBEDPACK_CACHE, else below the user's cache; None: there is none."""
    cache = runtime_cache()
    return None if cache is None else cache / "prepared"


def find_prepared(cache: Path, identity: Identity) -> PreparedGraph | None:
    """Find a prepacked graph; None if there is none or it fails a check, which is logged."""
    folder = cache / identity.key
    if not os.path.lexists(folder):
        return None
    try:
        return read_prepared(folder, identity)
    except (PackError, OSError) as cause:
        logger.warning("%s; it is not used: run embedpack prepare again", cause)
        return None


def check_prepared(cache: Path, identity: Identity) -> PreparedGraph | None:
    """Find a prepacked graph and read all its files to check their digests; None if there is none."""
    folder = cache / identity.key
    if not os.path.lexists(folder):
        return None
    prepared = read_prepared(folder, identity)
    for name, entry in prepared.record.files.items():
        if describe_file(folder / name) != entry:
            raise PackError(f"{folder / name}: changed since it was prepared")
    return prepared


def read_prepared(folder: Path, identity: Identity) -> PreparedGraph:
    """Open a prepacked graph; checks the digests of its files (see `embedpack.pack.digests`).

    PackError if it is damaged, was made for another host or graph, or others may write to it.
    """
    for path in (folder.parent, folder, folder / RECORD):
        check_private(path)
    check_folders_above(folder.parent)
    record = _read_record(folder / RECORD)
    if record.identity != identity:
        raise PackError(f"{folder / RECORD}: made for another graph, CPU or onnxruntime")
    if set(record.files) not in (set(FILES), set()):
        raise PackError(f"{folder / RECORD}: names other files than {', '.join(FILES)}")
    for name, entry in record.files.items():
        check_private(folder / name)
        size = (folder / name).stat().st_size
        if size != entry.bytes:
            raise PackError(f"{folder / name}: expected {entry.bytes} bytes, found {size}")
        if checked_entry(folder / name, entry) != entry:
            raise PackError(f"{folder / name}: changed since it was prepared")
    return PreparedGraph(folder, record)


def _read_record(path: Path) -> Record:
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise PackError(f"{path}: {path.stat().st_size} bytes; a record has at most {MAX_RECORD_BYTES}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise PackError(f"{path}: {cause}") from cause
