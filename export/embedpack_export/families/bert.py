"""BERT: learned positions from 0, two token types, post-norm layers (all-MiniLM, e5, bge and many others)."""

from __future__ import annotations

import re

from embedpack_export.families._encoder import PostNormConfig, pooler_and_classifier, scores_of
from embedpack_export.families.model import Family, Model, ScoreModel, by_model_type
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ENCODERS, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import FamilyTokenizer


class BertConfig(PostNormConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    type_vocab_size: Size = 2


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
    return config.model(config.shape(), RULES, FamilyTokenizer("BertTokenizer"))


def read_scores(checkpoint: Checkpoint) -> ScoreModel:
    """Head of BertForSequenceClassification."""
    config = parse_config(checkpoint, BertConfig, KEYS)
    return scores_of(pooler_and_classifier(config.hidden_size), config.shape())


FAMILY = Family("bert", by_model_type("bert"), read, (KEYS,), read_scores=read_scores)
