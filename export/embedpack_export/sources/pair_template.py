"""Template of pairs of a query and a document, from the post-processor of a tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError
from embedpack.pack.score_recipes import Part, Slot, Template
from embedpack_export.sources.tokenizer_ends import library_errors, load_tokenizer

SLOTS: Mapping[int, Slot] = {0: Slot(slot="query"), 1: Slot(slot="document")}


@dataclass(frozen=True)
class PairTemplate:
    """Parts of a pair; `token_types`: the document and all behind it have type 1, the rest 0."""

    parts: Template
    token_types: bool


def pair_template(document: Mapping[str, Any], path: Path) -> PairTemplate:
    """Template by which a tokenizer.json's content makes one sequence of two texts.

    Raises:
        CheckpointError: nothing separates the two texts, or they have other token types than 0 and 1.
    """
    tokenizer = load_tokenizer(document, path)
    with library_errors(path):
        pair = tokenizer.encode("a", "b")
    parts: list[Part] = []
    for sequence, run in groupby(zip(pair.sequence_ids, pair.ids, strict=True), lambda token: token[0]):
        parts.append(tuple(number for _, number in run) if sequence is None else SLOTS[sequence])
    second = pair.sequence_ids.index(1)
    if second == 0 or pair.sequence_ids[second - 1] is not None:
        raise CheckpointError(
            f"{path}: the post_processor puts no token between the two texts of a pair; save a tokenizer that does"
        )
    of_bert = [0] * second + [1] * (len(pair.ids) - second)
    if pair.type_ids not in ([0] * len(pair.ids), of_bert):
        raise CheckpointError(f"{path}: a pair has the token types {pair.type_ids}; supported: {of_bert}, or zeros")
    return PairTemplate(tuple(parts), token_types=pair.type_ids == of_bert)
