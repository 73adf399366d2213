"""Choice of the settings of a model for multi-vectors among those of a checkpoint and its adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np

from embedpack.errors import CheckpointError
from embedpack_export.sources.multi_vector_config import MultiVectorConfig
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig


def find_multi_vectors(
    config: SentenceTransformersConfig, by_task: Mapping[str, SentenceTransformersConfig]
) -> MultiVectorConfig | None:
    """Settings of a model for multi-vectors: of the adapters, else of the checkpoint; None: it gives single vectors.

    Raises:
        CheckpointError: the adapters have different settings or heads.
    """
    stated = [each for each in by_task.values() if each.modules]
    if not any(each.multi for each in stated):
        if stated and config.multi is not None:
            raise CheckpointError(
                f"{stated[0].folder} has modules for single vectors, and {config.folder} gives multi-vectors; are both "
                "of one model?"
            )
        return config.multi
    for (task, each), (other, another) in pairwise(by_task.items()):
        if not _same(each.multi, another.multi):
            raise CheckpointError(
                f"{each.folder} and {another.folder}: the adapters of {task!r} and {other!r} have other markers, "
                "limits, skipped tokens or layers for multi-vectors, and a pack has one head; export them as packs of "
                "their own"
            )
    return stated[0].multi


def _same(one: MultiVectorConfig | None, other: MultiVectorConfig | None) -> bool:
    if one is None or other is None:
        return one is other
    plain = [replace(each, path=one.path, layers=()) for each in (one, other)]
    if plain[0] != plain[1] or [a.layer for a in one.layers] != [b.layer for b in other.layers]:
        return False
    return all(
        np.array_equal(a.tensors[name].float32(), b.tensors[name].float32())
        for a, b in zip(one.layers, other.layers, strict=True)
        for name in a.tensors
    )
