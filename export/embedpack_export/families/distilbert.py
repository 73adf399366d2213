"""DistilBERT: BERT's layers under other names, without token types (msmarco-distilbert, multilingual distiluse)."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.graph.towers.encoder import EncoderNames, EncoderShape, bidirectional_encoder
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, COMMON, ENCODERS
from embedpack_export.sources.key_rules import Followed, KeyTable, Only, no_effect
from embedpack_export.sources.tokenizer_class import FamilyTokenizer
from embedpack_export.sources.weights import NameRules


class DistilBertConfig(msgspec.Struct, frozen=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    vocab_size: Size
    dim: Size
    n_layers: Size
    n_heads: Size
    hidden_dim: Size
    max_position_embeddings: Size
    pad_token_id: int | None = 0
    activation: Literal["gelu", "gelu_new", "gelu_pytorch_tanh"] = "gelu"
    matryoshka_dims: tuple[int, ...] = ()


SHAPE = "vocab_size dim n_layers n_heads hidden_dim max_position_embeddings"
KEYS = KeyTable(
    "config.json (distilbert)",
    {
        **COMMON,
        **{name: Followed("shape of the graph") for name in SHAPE.split()},
        "is_decoder": ENCODERS["is_decoder"],
        "is_causal": ENCODERS["is_causal"],
        "activation": Only(("gelu", "gelu_new", "gelu_pytorch_tanh"), ANOTHER_CHECKPOINT),
        **no_effect("of training", ("sinusoidal_pos_embds", "tie_weights_", "qa_dropout", "seq_classif_dropout")),
    },
)
NAMES = EncoderNames(
    layer="transformer.layer.{}",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    mixed="attention.out_lin",
    attention_norm="sa_layer_norm",
    inner="ffn.lin1",
    outer="ffn.lin2",
    output_norm="output_layer_norm",
)
RULES = NameRules(
    prefixes=("distilbert.",),
    renames={},
    unused=re.compile(r"^(vocab_(transform|layer_norm|projector)\.|pre_classifier\.|classifier\.|qa_outputs\.)"),
)
# Of transformers' module, which config.json cannot change.
EPSILON = 1e-12


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a DistilBERT checkpoint."""
    config = parse_config(checkpoint, DistilBertConfig, KEYS)
    shape = EncoderShape(
        vocabulary=config.vocab_size,
        hidden=config.dim,
        layers=config.n_layers,
        heads=config.n_heads,
        intermediate=config.hidden_dim,
        activation=config.activation,
        epsilon=EPSILON,
        positions=config.max_position_embeddings,
        first_position=0,
        token_types=0,
        names=NAMES,
    )
    return Model(
        hidden=config.dim,
        max_tokens=config.max_position_embeddings,
        pad_token_id=config.pad_token_id,
        vocabulary=config.vocab_size,
        truncate_dims=config.matryoshka_dims,
        rules=RULES,
        text=bidirectional_encoder(shape),
        tokenizer=FamilyTokenizer("BertTokenizer"),
    )


FAMILY = Family("distilbert", by_model_type("distilbert"), read, (KEYS,))
