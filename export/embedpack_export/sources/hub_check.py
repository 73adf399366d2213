"""Check of the answers of a hub and of the files in its cache.

huggingface_hub names files of its cache after ETags, also those that lead out of the cache, and does not compare what
it downloads with them. The ETag of a large file is its sha256, that of other files git's digest of a blob.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError, failed

logger = logging.getLogger("embedpack")

COMMIT = re.compile("[0-9a-f]{40}")
SHA1, SHA256 = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{64}")
# Headers of the commit of a file, and of its ETag: that of a large file, which lies elsewhere, goes first.
COMMIT_HEADER, ETAG_HEADERS = "x-repo-commit", ("x-linked-etag", "etag")
ETAG = re.compile(r'(W/)?"?[A-Za-z0-9_-]+"?')


@contextmanager
def checked_answers(repository: str) -> Iterator[None]:
    """Refuse answers with an ETag that is no plain name, before a file is named after it.

    Raises:
        CheckpointError: there was such an answer.
    """
    from huggingface_hub import get_session

    def check(response: Any) -> None:
        # huggingface_hub uses the first of these, and none without a commit.
        name = next((name for name in ETAG_HEADERS if response.headers.get(name)), None)
        if name is not None and COMMIT_HEADER in response.headers and not ETAG.fullmatch(response.headers[name]):
            raise CheckpointError(
                f"{repository}: the hub sent {name} {response.headers[name]!r}, which cannot name a file; check "
                "HF_ENDPOINT"
            )

    session = get_session()
    before = session.event_hooks
    session.event_hooks = {**before, "response": [*before["response"], check]}
    try:
        yield
    finally:
        session.event_hooks = before


def check_commit(repository: str, folder: Path) -> str:
    """The commit that a folder of the hub's cache is named after; raises CheckpointError if it is none."""
    if not COMMIT.fullmatch(folder.name):
        raise CheckpointError(f"{repository}: the hub sent {folder.name!r} for a commit; check HF_ENDPOINT")
    return folder.name


def check_snapshot(repository: str, folder: Path) -> None:
    """Compare the files of a commit in the hub's cache with the digests that they are named after.

    Raises:
        CheckpointError: a file differs.
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_symlink()):
        if not has_digest(path):
            logger.warning("%s: the hub sent no digest of it, so it is not compared with one", path)


def has_digest(path: Path) -> bool:
    """Compare a file of the cache, a link, with the digest that it is named after; False: its name is no digest.

    Raises:
        CheckpointError: it differs, or cannot be read.
    """
    blob = path.readlink().name
    try:
        found = _digests(path, blob)
    except OSError as cause:
        raise CheckpointError(f"{path}: {failed('read', cause)}") from cause
    if found is not None and blob not in found:
        raise CheckpointError(
            f"{path}: differs from the hub's digest, {blob[:16]}; remove {path.resolve()}, and run it again"
        )
    return found is not None


def _digests(path: Path, blob: str) -> set[str] | None:
    """Digests of a file that the name of its blob can be; None: it is no digest."""
    if SHA256.fullmatch(blob):
        with path.open("rb") as stream:
            return {hashlib.file_digest(stream, "sha256").hexdigest()}
    if not SHA1.fullmatch(blob):
        return None
    content = path.read_bytes()
    # Some mirrors send the plain digest.
    return {hashlib.sha1(prefix + content, usedforsecurity=False).hexdigest()
            for prefix in (b"", b"blob %d\0" % len(content))}  # fmt: skip
