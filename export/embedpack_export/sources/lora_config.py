"""adapter_config.json of a LoRA: the fields that a merge depends on, and a judgement of all others by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.sources.adapter_keys import ADAPTER_CONFIG, MERGE_FIRST
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.key_rules import check_keys
from embedpack_export.sources.module_choice import ModuleChoice
from embedpack_export.sources.patterns import ends_with

Number = TypeVar("Number", int, float)

CONFIG_FILE = "adapter_config.json"
# Adapters of these kinds add tokens or states to each input instead of changing weights.
NOT_MERGEABLE = frozenset({"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT"})


TokenId = Annotated[int, msgspec.Meta(ge=0)]


class LoraConfig(ModuleChoice, frozen=True, kw_only=True):
    """Fields of adapter_config.json that a merge depends on, with PEFT's defaults."""

    peft_type: str
    r: Annotated[int, msgspec.Meta(ge=1)] = 8
    lora_alpha: float = 8
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    ensure_weight_tying: bool | None = None
    trainable_token_indices: list[TokenId] | dict[str, list[TokenId]] | None = None

    def rank(self, path: Path, module: str) -> int:
        """Rank of a module, by its name as it was trained."""
        return _by_pattern(path, self.rank_pattern, module, self.r)

    def scale(self, path: Path, module: str, rank: int) -> float:
        """Factor of B @ A: alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023, arXiv 2312.03732)."""
        alpha = _by_pattern(path, self.alpha_pattern, module, self.lora_alpha)
        return alpha / (rank**0.5 if self.use_rslora else rank)

    def tokens(self, module: str) -> tuple[int, ...]:
        """Tokens whose rows of an embedding table are replaced; none if PEFT would not replace any."""
        indices = self.trainable_token_indices
        if isinstance(indices, dict):
            indices = next((ids for name, ids in indices.items() if f".{module}".endswith(f".{name}")), None)
        return tuple(indices or ())


def read_lora_config(path: Path) -> LoraConfig:
    """Read an adapter_config.json.

    Raises:
        CheckpointError: the adapter is no LoRA, has a setting that a merge does not follow, or an unknown one.
    """
    fields = read_json(path, dict[str, Any])
    _check_kind(path, fields.get("peft_type"))
    # Later versions of PEFT write more settings, which are off.
    on = {name: value for name, value in fields.items() if value or ADAPTER_CONFIG.rule(name) is not None}
    check_keys(path, on, ADAPTER_CONFIG)
    return read_json(path, LoraConfig)


def _check_kind(path: Path, kind: object) -> None:
    """Refuse other kinds of adapters before their fields are read, which have other types."""
    if kind == "LORA":
        return
    remedy = (
        "it changes no weights, so it cannot be merged; train a LoRA"
        if isinstance(kind, str) and kind in NOT_MERGEABLE
        else MERGE_FIRST
    )
    raise CheckpointError(f"{path}: peft_type is {kind!r}; only LORA is read: {remedy}")


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
