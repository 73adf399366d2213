"""Settings of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from embedpack.errors import OptionError
from embedpack.pack.manifest import Modality, Pooling
from embedpack.pack.strict import AdapterMode, WeightsFormat
from embedpack.pack.variants import Device, devices_of
from embedpack_export.planning.prompt_options import PROMPTS_OF_FILES, PromptOptions
from embedpack_export.quantization.gptq import RoundingMethod

DEFAULT_WEIGHTS: tuple[WeightsFormat, ...] = ("fp32", "int8")
DEFAULT_INT4_METHOD: RoundingMethod = "gptaq"
# Budget in points of nDCG@10 of self-retrieval (`accuracy_check.self_retrieval`), by weights format. On the shipped
# texts all-MiniLM-L6-v2 loses 0.00, 0.03 and 0.50: enough room for other models, too little for a damaged one.
MAX_LOSS: dict[WeightsFormat, float] = {"fp32": 0.05, "fp16": 0.05, "int8": 0.3, "int4": 1.0}
LARGEST_LOSS = 100
ReferenceKind = Literal["torch", "fp32 graph"]
CodeCenter = Literal["calibrated", "none"]
DEFAULT_CODE_CENTER: CodeCenter = "calibrated"
# The task of a checkpoint that has no adapters.
BASE_TASK = "default"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of one export.

    Attributes:
        checkpoint: folder with config.json, safetensors and tokenizer.json.
        output: folder of the pack; must not exist unless `overwrite`.
        revision: commit of a downloaded checkpoint, for the manifest.
        name: name of the model; None: name of the folder.
        adapters: folders of PEFT adapters by task; empty: the adapters in the checkpoint, or the backbone alone if it
            has none.
        tasks: tasks to export, all if empty; of a checkpoint without adapters, the name of its task.
        base_task: name of a task without an adapter, beside those with one; None: there is none.
        adapter_modes: "merged": a graph for each task; "switchable": one graph for all tasks; empty: that of the family
            for several tasks whose adapters come with the checkpoint, else "merged".
        modality: "text": texts only; None: everything that the checkpoint reads.
        weights: weights formats; each gives one variant per task.
        device: device that int4 weights are for; fp32 and int8 are for CPUs, fp16 is for GPUs. None: CPUs.
        int4_method: rounding of int4 weights; weaker methods than "gptaq" are for comparisons.
        pooling: pooling; None: that of the checkpoint.
        max_tokens: maximum length of an input in tokens; None: that of the checkpoint.
        text_tokens: special tokens that are parsed in texts too; empty: special tokens in texts are plain characters.
        prompts: prompts besides those of the files.
        truncate_dims: allowed truncations besides the full dimension; empty: those of the checkpoint.
        calibrate: file of calibration texts, JSON lines with a "text" each; None: the texts of the exporter.
        code_center: center and rotation of low-bit codes; "calibrated": those that raise recall; "none": neither, so
            that binary codes are the signs of the vectors.
        max_loss: budget in points of nDCG@10 for all variants; None: MAX_LOSS.
        allow_loss: largest loss of a variant that exceeds MAX_LOSS and passes all the same; the pack records it.
        reference: reference of the accuracy check; None: torch if it is installed and the model fits into memory, else
            the fp32 graph.
        overwrite: replace an existing pack.
        seed: seed of all random choices, part of the manifest.
    """

    checkpoint: Path
    output: Path
    revision: str | None = None
    name: str | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    base_task: str | None = None
    adapter_modes: tuple[AdapterMode, ...] = ()
    modality: Modality | None = None
    weights: tuple[WeightsFormat, ...] = DEFAULT_WEIGHTS
    device: Device | None = None
    int4_method: RoundingMethod = DEFAULT_INT4_METHOD
    pooling: Pooling | None = None
    max_tokens: int | None = None
    text_tokens: tuple[str, ...] = ()
    prompts: PromptOptions = PROMPTS_OF_FILES
    truncate_dims: tuple[int, ...] = ()
    calibrate: Path | None = None
    code_center: CodeCenter = DEFAULT_CODE_CENTER
    max_loss: float | None = None
    allow_loss: float | None = None
    reference: ReferenceKind | None = None
    overwrite: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.device is not None and not any(self.device in devices_of(weights) for weights in self.weights):
            raise OptionError(
                f"--device {self.device}: no weights format of {', '.join(self.weights)} is for it; add --weights int4"
            )
        for option, value in (("--max-loss", self.max_loss), ("--allow-loss", self.allow_loss)):
            if value is not None and not 0 <= value <= LARGEST_LOSS:
                raise OptionError(f"{option} {value}: points of nDCG@10 that may be lost, from 0 to {LARGEST_LOSS}")
        if self.max_loss is not None and self.allow_loss is not None:
            raise OptionError(
                "--max-loss and --allow-loss exclude each other: the first sets the budget, the second lets variants "
                "pass that are over it"
            )
