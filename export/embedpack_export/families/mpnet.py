"""MPNet: BERT's layers with scores of relative positions, without token types (all-mpnet-base, multi-qa-mpnet)."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.graph.towers.encoder import EncoderNames, EncoderShape, bidirectional_encoder
from embedpack_export.graph.towers.relative_bias import RelativeBias
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, ENCODERS, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable, Only
from embedpack_export.sources.tokenizer_class import FamilyTokenizer
from embedpack_export.sources.weights import NameRules


class MpnetConfig(msgspec.Struct, frozen=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 1
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh"] = "gelu"
    matryoshka_dims: tuple[int, ...] = ()


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
    shape = EncoderShape(
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        intermediate=config.intermediate_size,
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        positions=config.max_position_embeddings,
        first_position=FIRST_POSITION,
        token_types=0,
        names=NAMES,
        relative=RelativeBias("encoder.relative_attention_bias", BUCKETS, MAX_DISTANCE),
    )
    return Model(
        hidden=config.hidden_size,
        max_tokens=config.max_position_embeddings - FIRST_POSITION,
        pad_token_id=config.pad_token_id,
        vocabulary=config.vocab_size,
        truncate_dims=config.matryoshka_dims,
        rules=RULES,
        text=bidirectional_encoder(shape),
        tokenizer=FamilyTokenizer("MPNetTokenizer"),
    )


FAMILY = Family("mpnet", by_model_type("mpnet"), read, (KEYS,))
