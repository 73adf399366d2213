"""DistilBERT: BERT's layers under other names, without token types (msmarco-distilbert, multilingual distiluse)."""

from __future__ import annotations

import re

from embedpack_export.families._encoder import ActivationName, PostNormConfig
from embedpack_export.families.heads import ScoreHead
from embedpack_export.families.model import Family, Model, ScoreModel, by_model_type
from embedpack_export.graph.towers.encoder_shape import EncoderNames
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, COMMON, ENCODERS
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.key_rules import Followed, KeyTable, Only, no_effect
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

SPELLING = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}


class DistilBertConfig(PostNormConfig, frozen=True, kw_only=True, rename=SPELLING):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    # Fields of the base class keep its spelling, so those with another one are declared again.
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    hidden_act: ActivationName = "gelu"


SHAPE = "vocab_size dim n_layers n_heads hidden_dim max_position_embeddings"
KEYS = KeyTable(
    "config.json (distilbert)",
    {
        **COMMON,
        **{name: Followed("shape of the graph") for name in SHAPE.split()},
        "is_decoder": ENCODERS["is_decoder"],
        "is_causal": ENCODERS["is_causal"],
        "activation": Only(("gelu", "gelu_new", "gelu_pytorch_tanh", "relu"), ANOTHER_CHECKPOINT),
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


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a DistilBERT checkpoint."""
    config = parse_config(checkpoint, DistilBertConfig, KEYS)
    # transformers' module has an epsilon of 1e-12, the default, which config.json cannot change.
    return config.model(config.shape(names=NAMES), RULES, FamilyTokenizer("BertTokenizer"))


def read_scores(checkpoint: Checkpoint) -> ScoreModel:
    """Head of DistilBertForSequenceClassification."""
    hidden = parse_config(checkpoint, DistilBertConfig, KEYS).hidden_size
    dense = Dense("pre_classifier", hidden, hidden, bias=True, activation="relu")
    return ScoreModel(ScoreHead("cls", (dense, Dense("classifier", hidden, 1, bias=True))))


FAMILY = Family("distilbert", by_model_type("distilbert"), read, (KEYS,), read_scores=read_scores)
