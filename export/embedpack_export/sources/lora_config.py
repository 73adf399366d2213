"""adapter_config.json of a LoRA: the fields that a merge depends on, and a judgement of all others by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.patterns import ends_with

Number = TypeVar("Number", int, float)

CONFIG_FILE = "adapter_config.json"
# Fields of PEFT that change nothing in a saved adapter beyond its keys.
HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout",
    "lora_ga_config", "megatron_core", "modules_to_save", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "target_modules", "task_type",
})  # fmt: skip
# Notes that training tools leave for themselves (unsloth; ms-swift; the first versions of PEFT).
NOTES = frozenset({"unsloth_fixed", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "merge_weights"})
# Settings of PEFT under which an adapter is more than a product of two matrices.
NOT_LORA = frozenset({
    "alora_invocation_tokens", "arrow_config", "enable_lora", "kasa_config", "layer_replication", "megatron_config",
    "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config",
})  # fmt: skip
# Other ways of initialising subtract the first A and B from the backbone, which is not in the adapter's file.
SELF_CONTAINED_INIT = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
# Adapters of these kinds add tokens or states to each input instead of changing weights.
NOT_MERGEABLE = frozenset({"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT"})


class LoraConfig(msgspec.Struct, frozen=True):
    """Fields of adapter_config.json that a merge depends on, with PEFT's defaults."""

    peft_type: str
    r: Annotated[int, msgspec.Meta(ge=1)] = 8
    lora_alpha: float = 8
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    fan_in_fan_out: bool | None = None
    init_lora_weights: bool | str | None = True

    def rank(self, path: Path, module: str) -> int:
        """Rank of a module, by its name as it was trained."""
        return _by_pattern(path, self.rank_pattern, module, self.r)

    def scale(self, path: Path, module: str, rank: int) -> float:
        """Factor of B @ A: alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023, arXiv 2312.03732)."""
        alpha = _by_pattern(path, self.alpha_pattern, module, self.lora_alpha)
        return alpha / (rank**0.5 if self.use_rslora else rank)


def read_lora_config(path: Path) -> LoraConfig:
    """Read an adapter_config.json.

    Raises:
        CheckpointError: the adapter is no LoRA, has a setting that a merge does not follow, or an unknown one.
    """
    fields = read_json(path, dict[str, Any])
    _check_kind(path, fields.get("peft_type"))
    config = read_json(path, LoraConfig)
    for name, value in fields.items():
        if value and name not in HARMLESS | NOTES and name not in LoraConfig.__struct_fields__:
            _refuse_setting(path, name, value)
    if config.fan_in_fan_out:
        raise CheckpointError(f"{path}: fan_in_fan_out is set; transposed (Conv1D) layers are not supported")
    init = config.init_lora_weights
    if (init.lower() if isinstance(init, str) else init) not in SELF_CONTAINED_INIT:
        raise CheckpointError(
            f"{path}: init_lora_weights is {init!r}, which also changed the backbone; save the adapter again with "
            "path_initial_model_for_weight_conversion, which makes it a plain LoRA"
        )
    return config


def _check_kind(path: Path, kind: object) -> None:
    """Refuse other kinds of adapters before their fields are read, which have other types."""
    if kind == "LORA":
        return
    remedy = (
        "it changes no weights, so it cannot be merged; train a LoRA"
        if isinstance(kind, str) and kind in NOT_MERGEABLE
        else "merge it with peft (merge_and_unload, save_pretrained) and export the merged model"
    )
    raise CheckpointError(f"{path}: peft_type is {kind!r}; only LORA is read: {remedy}")


def _refuse_setting(path: Path, name: str, value: object) -> None:
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}..."
    if name in NOT_LORA:
        raise CheckpointError(f"{path}: {name} is {shown}; merging such an adapter is not supported")
    raise CheckpointError(
        f"{path}: {name} is {shown}, an unknown setting; remove it if it is a note of a training tool that changes no "
        "weights"
    )


def _by_pattern(path: Path, patterns: Mapping[str, Number] | None, module: str, default: Number) -> Number:
    """Value of the first pattern that matches the end of the module's name, as in PEFT (utils/other.py)."""
    for pattern, value in (patterns or {}).items():
        try:
            if re.match(ends_with(pattern), module):
                return value
        except (re.error, RecursionError) as cause:
            raise CheckpointError(
                f"{path}: {pattern!r} in rank_pattern or alpha_pattern is no regular expression: {cause}"
            ) from cause
    return default
