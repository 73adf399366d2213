"""Discovery of the evaluation sets below a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from embedpack.errors import InputError, OptionError, unknown
from embedpack_export.evaluation.sets.data import AnySet, PairSet
from embedpack_export.evaluation.sets.empty_text_filter import EmptyTextFilter
from embedpack_export.evaluation.sets.reading import SetFolder, open_set_folder, read_set

MIN_LIMIT = 2


def find_sets(data: Path) -> dict[str, SetFolder]:
    """Return all sets below a folder by their path in it; "" for the folder itself.

    Raises:
        InputError: the folder does not exist or holds no set.
    """
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; --data names the folder of the sets")
    root = open_set_folder(data, data.resolve().name)
    if root is not None:
        return {"": root}
    folders = {}
    for path, below, _ in os.walk(data):
        below[:] = sorted(name for name in below if not name.startswith("."))
        name = Path(path).relative_to(data).as_posix()
        folder = open_set_folder(Path(path), name)
        if folder is not None:
            folders[name] = folder
            below.clear()
    if not folders:
        raise InputError(
            f"{data}: no sets here; a set is a folder with corpus.jsonl, queries.jsonl and qrels.tsv, or with pairs.tsv"
        )
    return dict(sorted(folders.items()))


def read_sets(
    data: Path, names: Sequence[str] = (), limit: int | None = None, empty: EmptyTextFilter | None = None
) -> list[AnySet]:
    """Read the named sets of a folder, all without names; `limit` is the number of queries or pairs of each set.

    `empty` finds the empty texts that are left out; None: an empty text is an error.

    Raises:
        InputError: a set does not exist or cannot be read, or the limit is below 2.
    """
    if limit is not None and limit < MIN_LIMIT:
        raise OptionError(f"--limit is {limit}; it must be at least {MIN_LIMIT}")
    folders = find_sets(data)
    for name in names:
        if name not in folders:
            raise OptionError(f"{data}: {unknown('set', name, list(folders))}")
    sets = [read_set(folders[name], blank=empty is not None) for name in dict.fromkeys(names or folders)]
    if empty is not None:
        sets = [empty.remove_empty(evaluation_set) for evaluation_set in sets]
    return sets if limit is None else [_limited(evaluation_set, limit) for evaluation_set in sets]


def _limited(evaluation_set: AnySet, limit: int) -> AnySet:
    cut = evaluation_set.limited(limit)
    if isinstance(cut, PairSet) and len(set(cut.scores)) < 2:
        raise InputError(
            f"{evaluation_set.name}: its first {limit} pairs have one score, so there is nothing to rank; raise --limit"
        )
    return cut
