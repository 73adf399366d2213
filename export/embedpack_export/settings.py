"""What an export is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedpack.pack import AdapterMode, Modality, Pooling, WeightsFormat

DEFAULT_WEIGHTS: tuple[WeightsFormat, ...] = ("fp32", "int8")
# The task of a checkpoint that has no adapters.
BASE_TASK = "default"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of one export.

    Attributes:
        checkpoint: folder with config.json, safetensors and tokenizer.json.
        revision: of the checkpoint, where it was downloaded; part of the manifest.
        name: of the model; None: that of the folder.
        output: folder of the pack; must not exist unless `overwrite`.
        adapters: task to the folder of its PEFT adapter; empty takes the adapters that the checkpoint brings along,
            or exports the backbone as it is.
        tasks: which of the checkpoint's tasks to export, all where empty; the name of the only task of a checkpoint
            without adapters.
        adapter_modes: "merged": a graph for each task; "switchable": one graph for all of them.
        modality: "text" leaves the part out that reads images; None takes all that the checkpoint has.
        weights: formats of the matrices, one variant each per task.
        pooling: overrides what the checkpoint says.
        max_tokens: overrides what the checkpoint says.
        truncate_dims: allowed truncations beside the full dimension; empty takes what the checkpoint says.
        calibrate: JSON lines with a "text", in place of the texts that come with the exporter.
        overwrite: replace an existing pack.
        seed: part of the manifest; every random choice of an export starts from it.
    """

    checkpoint: Path
    output: Path
    revision: str | None = None
    name: str | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    adapter_modes: tuple[AdapterMode, ...] = ("merged",)
    modality: Modality | None = None
    weights: tuple[WeightsFormat, ...] = DEFAULT_WEIGHTS
    pooling: Pooling | None = None
    max_tokens: int | None = None
    truncate_dims: tuple[int, ...] = ()
    calibrate: Path | None = None
    overwrite: bool = False
    seed: int = 0
