"""jina-reranker-v2: XLM-RoBERTa with fused projections, which scores long documents window by window.

The published config.json has no model type. Its code (`rerank`) cuts a query to half of a pair, and gives a document
that is too long the highest score of windows that share 80 tokens.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from embedpack_export.families.model import Family, Model, ScoreModel
from embedpack_export.families.xlm_roberta import KEYS as XLM_ROBERTA_KEYS
from embedpack_export.families.xlm_roberta import XlmRobertaConfig, classification_head, has_fused_names
from embedpack_export.sources.checkpoint import Checkpoint, parse_config
from embedpack_export.sources.colbert_metadata import is_colbert
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, SIZES, code_of
from embedpack_export.sources.key_rules import KeyTable, Only, no_effect
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

OVERLAP = 80
KEYS = KeyTable(
    "config.json (jina_reranker_v2)",
    {
        **XLM_ROBERTA_KEYS.rules,
        "hidden_act": Only(("gelu",), ANOTHER_CHECKPOINT),
        "emb_pooler": Only((None,), ANOTHER_CHECKPOINT),
        "auto_map": code_of("XLMRobertaFlashConfig", "XLMRobertaModel", "XLMRobertaForSequenceClassification"),
        **no_effect("of how the model is run", ("use_flash_attn", "use_reentrant")),
    },
)
RULES = NameRules(
    prefixes=("roberta.",),
    renames={
        "emb_ln": "embeddings.LayerNorm",
        "encoder.layers.": "encoder.layer.",
        ".mixer.out_proj": ".attention.output.dense",
        ".mlp.fc1": ".intermediate.dense",
        ".mlp.fc2": ".output.dense",
        ".norm1": ".attention.output.LayerNorm",
        ".norm2": ".output.LayerNorm",
    },
    unused=re.compile(r"^(pooler|lm_head)\."),
    fused={".mixer.Wqkv": (".attention.self.query", ".attention.self.key", ".attention.self.value")},
)


def claims(checkpoint: Checkpoint) -> bool:
    """True for fused projections without rotary positions, but for ColBERT models, whose positions are rotary."""
    kind, positions = checkpoint.config.get("model_type"), checkpoint.config.get("position_embedding_type")
    plain = positions != "rotary" and not is_colbert(checkpoint)
    return kind in (None, "xlm-roberta") and plain and has_fused_names(checkpoint)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint."""
    config = parse_config(checkpoint, XlmRobertaConfig, KEYS)
    model = config.model(config.shape(first=config.pad_token_id + 1), RULES, FamilyTokenizer("XLMRobertaTokenizer"))
    return replace(model, config_of_class=_of_class(config))


def read_scores(checkpoint: Checkpoint) -> ScoreModel:
    """Head of the class for sequence classification in the checkpoint's code, which is RoBERTa's."""
    hidden = parse_config(checkpoint, XlmRobertaConfig, KEYS).hidden_size
    return ScoreModel(classification_head(hidden), overlap=OVERLAP)


def _of_class(config: XlmRobertaConfig) -> dict[str, Any]:
    """The configuration of transformers' class."""
    names = (*SIZES.split(), "type_vocab_size", "pad_token_id", "layer_norm_eps")
    return {"model_type": "xlm-roberta", **{name: getattr(config, name) for name in names}}


FAMILY = Family("jina_reranker_v2", claims, read, (KEYS,), read_scores=read_scores)
