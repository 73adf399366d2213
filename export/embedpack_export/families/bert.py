"""BERT: learned positions from 0, two token types, post-norm layers (all-MiniLM, e5, bge and many others)."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.graph.towers.encoder import EncoderShape, bidirectional_encoder
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ENCODERS, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable
from embedpack_export.sources.tokenizer_class import FamilyTokenizer
from embedpack_export.sources.weights import NameRules


class BertConfig(msgspec.Struct, frozen=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size
    type_vocab_size: Size = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh"] = "gelu"
    matryoshka_dims: tuple[int, ...] = ()


KEYS = KeyTable(
    "config.json (bert)",
    {**ENCODERS, **sizes("type_vocab_size"), "layer_norm_eps": Followed("epsilon of the layer norms")},
)


RULES = NameRules(
    prefixes=("bert.",),
    # Names of BERT checkpoints from TensorFlow.
    renames={".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"},
    unused=re.compile(r"^(pooler\.|cls\.|embeddings\.position_ids$)"),
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a BERT checkpoint."""
    config = parse_config(checkpoint, BertConfig, KEYS)
    shape = EncoderShape(
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        intermediate=config.intermediate_size,
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        positions=config.max_position_embeddings,
        first_position=0,
        token_types=config.type_vocab_size,
    )
    return Model(
        hidden=config.hidden_size,
        max_tokens=config.max_position_embeddings,
        pad_token_id=config.pad_token_id,
        vocabulary=config.vocab_size,
        truncate_dims=config.matryoshka_dims,
        rules=RULES,
        text=bidirectional_encoder(shape),
        tokenizer=FamilyTokenizer("BertTokenizer"),
    )


FAMILY = Family("bert", by_model_type("bert"), read, (KEYS,))
