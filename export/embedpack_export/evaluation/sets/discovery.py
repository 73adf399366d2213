"""The sets below a folder, and the task of a pack that each belongs to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from embedpack.errors import InputError, unknown
from embedpack_export.evaluation.sets.data import AnySet, Kind, PairSet
from embedpack_export.evaluation.sets.reading import is_set, read_set

# Tasks that a kind of sets asks for, the best first.
WANTED: dict[Kind, tuple[str, ...]] = {
    "code": ("code", "retrieval"),
    "sts": ("text-matching", "retrieval"),
    "retrieval": ("retrieval",),
    "visual": ("retrieval",),
}


def set_names(data: Path) -> list[str]:
    """Names of all sets below a folder, or "" for the folder itself.

    Raises:
        InputError: there is no such folder, or no set in it.
    """
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; --data names the folder of the sets")
    if is_set(data):
        return [""]
    found = []
    for folder, below, _ in os.walk(data):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if is_set(Path(folder)):
            found.append(Path(folder).relative_to(data).as_posix())
            below.clear()
    if not found:
        raise InputError(
            f"{data}: no sets here; a set is a folder with corpus.jsonl, queries.jsonl and qrels.tsv, or with pairs.tsv"
        )
    return sorted(found)


def read_sets(data: Path, names: Sequence[str] = (), limit: int | None = None) -> list[AnySet]:
    """The sets of these names, all where none is named; of each only `limit` queries or pairs.

    Raises:
        InputError: a set is not there or cannot be read, or the limit is below 2.
    """
    if limit is not None and limit < 2:
        raise InputError(f"--limit is {limit}; it must be at least 2")
    known = set_names(data)
    for name in names:
        if name not in known:
            raise InputError(f"{data}: {unknown('set', name, known)}")
    sets = [read_set(data, name) for name in dict.fromkeys(names or known)]
    return sets if limit is None else [_limited(item, limit) for item in sets]


def _limited(item: AnySet, limit: int) -> AnySet:
    cut = item.limited(limit)
    if isinstance(cut, PairSet) and len(set(cut.scores)) < 2:
        raise InputError(
            f"{item.name}: its first {limit} pairs have one score, so nothing is to be ranked; raise --limit"
        )
    return cut


def task_of(kind: Kind, tasks: Sequence[str]) -> str | None:
    """The task that a kind of sets is measured with; None: none of them is known to be the right one."""
    for wanted in WANTED[kind]:
        if wanted in tasks:
            return wanted
    return tasks[0] if len(tasks) == 1 else None
