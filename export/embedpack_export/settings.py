"""What an export is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedpack.pack import Pooling, WeightsFormat

DEFAULT_WEIGHTS: tuple[WeightsFormat, ...] = ("fp32", "int8")
# The task of a checkpoint that has no adapters.
BASE_TASK = "default"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of one export.

    Attributes:
        checkpoint: folder with config.json, safetensors and tokenizer.json.
        output: folder of the pack; must not exist unless `overwrite`.
        adapters: task to the folder of its PEFT adapter; empty exports the backbone as it is.
        weights: formats of the matrices, one variant each per task.
        pooling: overrides what the checkpoint says.
        max_tokens: overrides what the checkpoint says.
        truncate_dims: allowed truncations beside the full dimension; empty takes what the checkpoint says.
        calibrate: JSON lines with a "text", in place of the texts that come with the exporter.
        overwrite: replace an existing pack.
        seed: part of the manifest; every random choice of an export would start from it.
    """

    checkpoint: Path
    output: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)
    weights: tuple[WeightsFormat, ...] = DEFAULT_WEIGHTS
    pooling: Pooling | None = None
    max_tokens: int | None = None
    truncate_dims: tuple[int, ...] = ()
    calibrate: Path | None = None
    overwrite: bool = False
    seed: int = 0
