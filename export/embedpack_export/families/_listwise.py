"""Listwise rerankers of Jina on Qwen3: marks behind the texts of a list, and a projector; no family of its own."""

from __future__ import annotations

from dataclasses import replace

from embedpack_export.families.heads import Heads, MarkHead
from embedpack_export.families.model import ListPrompt, Model
from embedpack_export.families.qwen3 import KEYS as QWEN3_KEYS
from embedpack_export.families.qwen3 import LISTWISE, PROJECTOR, Qwen3Config
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import code_of
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.key_rules import KeyTable

# Dimensions of the vectors at marks in the model's code.
PROJECTED = 512


class ListwiseConfig(Qwen3Config, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; a default of Qwen3 would give other scores."""

    head_dim: Size
    rms_norm_eps: float
    rope_theta: float


def keys(family: str) -> KeyTable:
    """Rules of the keys of config.json of a family."""
    return KeyTable(f"config.json ({family})", {**QWEN3_KEYS.rules, "auto_map": code_of(LISTWISE)})


def has_window_types(checkpoint: Checkpoint) -> bool:
    """True if `layer_types` has layers with a sliding window."""
    types = checkpoint.config.get("layer_types")
    return isinstance(types, list) and "sliding_attention" in types


def read_listwise(checkpoint: Checkpoint, table: KeyTable, prompt: ListPrompt) -> Model:
    """Build the model of a checkpoint with the prompt of its family."""
    config = parse_config(checkpoint, ListwiseConfig, table)
    model, inner = config.model(config.shape(qk_norm=True, windows=config.windows())), config.hidden_size // 2
    layers = (
        Dense(PROJECTOR, config.hidden_size, inner, bias=False, activation="relu"),
        Dense("projector.2", inner, PROJECTED, bias=False),
    )
    return replace(model, heads=Heads(score=MarkHead(layers)), list_prompt=prompt)
