"""Qwen3: a causal decoder with a norm for each head of queries and keys (Qwen3-Embedding)."""

from __future__ import annotations

from embedpack_export.families._windowed_decoder import KEYS as DECODER_KEYS
from embedpack_export.families._windowed_decoder import WindowedDecoderConfig
from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT
from embedpack_export.sources.key_rules import KeyTable, Only


class Qwen3Config(WindowedDecoderConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on."""

    num_key_value_heads: Size
    head_dim: Size | None = 128


KEYS = KeyTable("config.json (qwen3)", {**DECODER_KEYS, "attention_bias": Only((False, None), ANOTHER_CHECKPOINT)})


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a Qwen3 checkpoint."""
    config = parse_config(checkpoint, Qwen3Config, KEYS)
    return config.model(config.shape(qk_norm=True, windows=config.windows()))


FAMILY = Family("qwen3", by_model_type("qwen3"), read, (KEYS,))
