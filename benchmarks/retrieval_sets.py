"""Evaluation sets of queries and documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedpack.errors import InputError
from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.discovery import read_sets


def read_retrieval_sets(data: Path, names: Sequence[str], limit: int | None = None) -> list[RetrievalSet]:
    """Read sets of queries and documents; arguments as for `read_sets`.

    Raises:
        InputError: as `read_sets`, or one of the sets is a pair set.
    """
    sets = []
    for evaluation_set in read_sets(data, names, limit):
        if not isinstance(evaluation_set, RetrievalSet):
            raise InputError(
                f"{data / evaluation_set.name}: a set of pairs; here a set with queries and documents is needed"
            )
        sets.append(evaluation_set)
    return sets
