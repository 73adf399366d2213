"""Qwen2: a causal decoder with biases on q, k and v (jina-code-embeddings, Qwen2.5 and its descendants)."""

from __future__ import annotations

from embedpack_export.families._windowed_decoder import KEYS as DECODER_KEYS
from embedpack_export.families._windowed_decoder import WindowedDecoderConfig
from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.key_rules import KeyTable


class Qwen2Config(WindowedDecoderConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on."""

    num_key_value_heads: Size


KEYS = KeyTable("config.json (qwen2)", DECODER_KEYS)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a Qwen2 checkpoint."""
    config = parse_config(checkpoint, Qwen2Config, KEYS)
    return config.model(config.shape(biases=True, windows=config.windows()))


FAMILY = Family("qwen2", by_model_type("qwen2"), read, (KEYS,))
