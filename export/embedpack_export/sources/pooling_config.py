"""config.json of the Pooling module of sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from embedpack.errors import CheckpointError, unknown
from embedpack.pack.manifest import Pooling
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.key_rules import check_keys
from embedpack_export.sources.sentence_transformers_keys import POOLING

POOLINGS: Mapping[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "max": "max",
    "weightedmean": "weighted_mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
}
# Names of the modes by the flags of older files.
POOLING_FLAGS: Mapping[str, str] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}


class _Fields(msgspec.Struct, frozen=True):
    pooling_mode: str | tuple[str, ...] | None = None
    include_prompt: bool = True


@dataclass(frozen=True)
class PoolingConfig:
    """Pooling of the module."""

    pooling: Pooling
    include_prompt: bool  # false: tokens of the prompt are not pooled


def read_pooling(path: Path, folder: Path, override: Pooling | None) -> PoolingConfig:
    """Read the file at `path`, which must lie in `folder`; `override` replaces its pooling.

    Raises:
        CheckpointError: it is damaged, a key is unknown, or it asks for another pooling or for several.
    """
    content = read_json(path, dict[str, Any], folder)
    check_keys(path, content, POOLING)
    fields = read_json(path, _Fields, folder)
    return PoolingConfig(override or _pooling(path, content, fields.pooling_mode), fields.include_prompt)


def _pooling(path: Path, content: Mapping[str, Any], mode: str | tuple[str, ...] | None) -> Pooling:
    """Pooling by `pooling_mode`, a name or a list, of newer files, else by the flags of older ones."""
    names = (mode,) if isinstance(mode, str) else mode
    if names is None:
        flags = [key for key, value in content.items() if key.startswith("pooling_mode_") and value is True]
        if not set(flags) <= set(POOLING_FLAGS):
            raise CheckpointError(f"{path}: asks for {', '.join(flags)}; known: {', '.join(POOLING_FLAGS)}")
        # Without any flag, sentence-transformers takes the mean.
        names = tuple(POOLING_FLAGS[flag] for flag in flags) or ("mean",)
    for name in names:
        if name not in POOLINGS:
            raise CheckpointError(f"{path}: {unknown('pooling_mode', name, POOLINGS)}")
    if len(names) != 1:
        raise CheckpointError(
            f"{path}: asks for {len(names)} ways of pooling ({', '.join(names)}), one is possible; pass --pooling"
        )
    return POOLINGS[names[0]]
