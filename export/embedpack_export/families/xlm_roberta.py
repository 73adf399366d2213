"""XLM-RoBERTa: BERT's layers, with positions that begin after the padding id (multilingual-e5-base, bge-m3)."""

from __future__ import annotations

import re
from typing import Any

from embedpack.errors import CheckpointError
from embedpack_export.families._encoder import PostNormConfig
from embedpack_export.families.heads import ScoreHead
from embedpack_export.families.model import Family, Model, ScoreModel, by_model_type
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ENCODERS, sizes
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import FamilyTokenizer


class XlmRobertaConfig(PostNormConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    type_vocab_size: Size = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1


def pad_token_id_problem(value: Any) -> str | None:
    """Reason to refuse a `pad_token_id`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return None
    return "supported: 0 or more, as positions begin after it; take the value that the model was trained with, often 1"


KEYS = KeyTable(
    "config.json (xlm-roberta)",
    {
        **ENCODERS,
        **sizes("type_vocab_size"),
        "layer_norm_eps": Followed("epsilon of the layer norms"),
        "pad_token_id": Checked("0 or more: positions begin after it", pad_token_id_problem),
    },
)


RULES = NameRules(
    prefixes=("roberta.",), renames={}, unused=re.compile(r"^(pooler\.|lm_head\.|embeddings\.position_ids$)")
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of an XLM-RoBERTa checkpoint."""
    config = parse_config(checkpoint, XlmRobertaConfig, KEYS)
    # Row pad_token_id belongs to padding; the first real token has the next row.
    first_position = config.pad_token_id + 1
    if first_position >= min(config.vocab_size, config.max_position_embeddings):
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: pad_token_id is {config.pad_token_id}; positions begin after it, "
            f"and there are {config.max_position_embeddings} positions, {config.vocab_size} tokens. Take the value "
            "that the model was trained with, often 1"
        )
    return config.model(config.shape(first=first_position), RULES, FamilyTokenizer("XLMRobertaTokenizer"))


def read_scores(checkpoint: Checkpoint) -> ScoreModel:
    """Head of XLMRobertaForSequenceClassification."""
    return ScoreModel(classification_head(parse_config(checkpoint, XlmRobertaConfig, KEYS).hidden_size))


def classification_head(hidden: int) -> ScoreHead:
    """Head of RoBERTa's class: the first token through a layer of its own, and one label."""
    dense = Dense("classifier.dense", hidden, hidden, bias=True, activation="tanh")
    return ScoreHead("cls", (dense, Dense("classifier.out_proj", hidden, 1, bias=True)))


def claims(checkpoint: Checkpoint) -> bool:
    """True for its model type; code with rotary positions saves that type too."""
    is_rotary = checkpoint.config.get("position_embedding_type") == "rotary"
    return by_model_type("xlm-roberta")(checkpoint) and not is_rotary and not has_fused_names(checkpoint)


def has_fused_names(checkpoint: Checkpoint) -> bool:
    """True for the names of Jina's code, which fuses the projections to queries, keys and values."""
    return any(name.endswith("encoder.layers.0.mixer.Wqkv.weight") for name in checkpoint.tensors)


FAMILY = Family("xlm-roberta", claims, read, (KEYS,), read_scores=read_scores)
