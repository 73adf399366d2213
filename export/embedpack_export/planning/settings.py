"""What an export is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from embedpack.errors import InputError
from embedpack.pack.manifest import AdapterMode, Modality, Pooling, WeightsFormat
from embedpack_export.quantization.gptq import RoundingMethod

DEFAULT_WEIGHTS: tuple[WeightsFormat, ...] = ("fp32", "int8")
DEFAULT_INT4_METHOD: RoundingMethod = "gptaq"
# Points of nDCG@10 that a variant may lose (see `report.ranking`), by its weights format. On the shipped texts
# all-MiniLM-L6-v2 loses 0.00, 0.03 and 0.50: enough room for other models, too little for a damaged one.
MAX_LOSS: dict[WeightsFormat, float] = {"fp32": 0.05, "int8": 0.3, "int4": 1.0}
LARGEST_LOSS = 100
ReferenceKind = Literal["torch", "fp32 graph"]
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
        int4_method: rounding of int4 weights; weaker methods than "gptaq" are for comparisons.
        pooling: overrides what the checkpoint says.
        max_tokens: overrides what the checkpoint says.
        truncate_dims: allowed truncations beside the full dimension; empty takes what the checkpoint says.
        calibrate: JSON lines with a "text", in place of the texts that come with the exporter.
        max_loss: points of nDCG@10 that any variant may lose; None: MAX_LOSS.
        allow_loss: lets a variant pass that loses more than MAX_LOSS, up to this; the pack says so.
        reference: what variants are compared with at the end; None: torch where it is installed and the model fits
            into memory, else the float32 graph.
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
    int4_method: RoundingMethod = DEFAULT_INT4_METHOD
    pooling: Pooling | None = None
    max_tokens: int | None = None
    truncate_dims: tuple[int, ...] = ()
    calibrate: Path | None = None
    max_loss: float | None = None
    allow_loss: float | None = None
    reference: ReferenceKind | None = None
    overwrite: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value in (("--max-loss", self.max_loss), ("--allow-loss", self.allow_loss)):
            if value is not None and not 0 <= value <= LARGEST_LOSS:
                raise InputError(f"{option} {value}: points of nDCG@10 that may be lost, from 0 to {LARGEST_LOSS}")
        if self.max_loss is not None and self.allow_loss is not None:
            raise InputError(
                "--max-loss and --allow-loss exclude each other: the first sets the budget, the second lets variants "
                "pass that are over it"
            )
