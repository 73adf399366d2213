"""Llama: a causal decoder without biases (SmolLM2, Llama 2)."""

from __future__ import annotations

from embedpack_export.families._decoder import KEYS as DECODER_KEYS
from embedpack_export.families._decoder import DecoderConfig
from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.sources.checkpoint import Checkpoint, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT
from embedpack_export.sources.key_rules import KeyTable, Only

KEYS = KeyTable(
    "config.json (llama)",
    {
        **DECODER_KEYS,
        "attention_bias": Only((False, None), ANOTHER_CHECKPOINT),
        "mlp_bias": Only((False, None), ANOTHER_CHECKPOINT),
    },
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a Llama checkpoint."""
    config = parse_config(checkpoint, DecoderConfig, KEYS)
    return config.model(config.shape())


FAMILY = Family("llama", by_model_type("llama"), read, (KEYS,))
