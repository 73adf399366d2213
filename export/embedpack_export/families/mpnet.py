"""MPNet: BERT's layers with scores of relative positions, without token types (all-mpnet-base, multi-qa-mpnet)."""

from __future__ import annotations

import re

from embedpack_export.families._encoder import PostNormConfig
from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.graph.towers.encoder_shape import EncoderNames
from embedpack_export.graph.towers.relative_bias import RelativeBias
from embedpack_export.sources.checkpoint import Checkpoint, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, ENCODERS, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable, Only
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import FamilyTokenizer


class MpnetConfig(PostNormConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    pad_token_id: int | None = 1


# Constants of transformers' module, which config.json does not change; row 1 of the position table is that of padding.
FIRST_POSITION = 2
BUCKETS, MAX_DISTANCE = 32, 128
KEYS = KeyTable(
    "config.json (mpnet)",
    {
        **ENCODERS,
        **sizes(""),
        "relative_attention_num_buckets": Only((BUCKETS,), ANOTHER_CHECKPOINT),
        "layer_norm_eps": Followed("epsilon of the layer norms"),
    },
)
NAMES = EncoderNames(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    mixed="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
RULES = NameRules(
    prefixes=("mpnet.",), renames={}, unused=re.compile(r"^(pooler\.|lm_head\.|embeddings\.position_ids$)")
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of an MPNet checkpoint."""
    config = parse_config(checkpoint, MpnetConfig, KEYS)
    relative = RelativeBias("encoder.relative_attention_bias", BUCKETS, MAX_DISTANCE)
    shape = config.shape(first=FIRST_POSITION, names=NAMES, relative=relative)
    return config.model(shape, RULES, FamilyTokenizer("MPNetTokenizer"))


FAMILY = Family("mpnet", by_model_type("mpnet"), read, (KEYS,))
