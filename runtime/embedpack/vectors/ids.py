"""Ids of vectors: texts, one for each input, stored as a JSON array in an array of bytes.

numpy's own arrays of texts give every text the room of the longest, and drop NUL characters at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError

# None: the vectors have no ids.
Ids: TypeAlias = tuple[str, ...] | None


def check_ids(ids: Ids, count: int) -> None:
    """Raise InputError unless there are no ids, or one for each of `count` inputs."""
    if ids is None:
        return
    if not isinstance(ids, tuple) or not all(isinstance(name, str) for name in ids):
        raise InputError("ids are a tuple of texts; convert numbers with str()")
    if len(ids) != count:
        raise InputError(f"{len(ids)} ids for {count} inputs; each input has one")


def select_ids(ids: Ids, rows: slice | npt.NDArray[Any]) -> Ids:
    """Ids of some rows."""
    if ids is None:
        return None
    return ids[rows] if isinstance(rows, slice) else tuple(ids[row] for row in np.arange(len(ids))[rows])


def concatenate_ids(parts: Sequence[Ids]) -> Ids:
    """Ids of concatenated parts; InputError if some parts have none."""
    given = [part for part in parts if part is not None]
    if given and len(given) < len(parts):
        raise InputError("embeddings with and without ids cannot be concatenated; give all of them ids, or none")
    return tuple(name for part in given for name in part) if given else None


def ids_to_bytes(ids: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return ids as a JSON array in UTF-8, uint8 [bytes]; InputError for a half surrogate pair."""
    try:
        return np.frombuffer(msgspec.json.encode(ids), np.uint8)
    except UnicodeEncodeError as cause:
        raise InputError("an id has a half surrogate pair, which UTF-8 cannot store; rename it") from cause


def ids_from_bytes(stored: npt.NDArray[Any]) -> tuple[str, ...]:
    """Invert `ids_to_bytes`; InputError for anything else."""
    try:
        if stored.dtype == np.uint8 and stored.ndim == 1:
            return msgspec.json.decode(stored.tobytes(), type=tuple[str, ...])
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise InputError(f"the ids are not a JSON array of texts: {cause}") from cause
    raise InputError(f"the ids are an array of type {stored.dtype}, not the bytes of a JSON array")
