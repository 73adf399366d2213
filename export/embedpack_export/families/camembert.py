"""CamemBERT: the layers and positions of XLM-RoBERTa (French sentence models)."""

from __future__ import annotations

from dataclasses import replace

from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.families.xlm_roberta import KEYS, read_scores
from embedpack_export.families.xlm_roberta import read as read_xlm_roberta
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.tokenizer_class import FamilyTokenizer


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a CamemBERT checkpoint."""
    return replace(read_xlm_roberta(checkpoint), tokenizer=FamilyTokenizer("CamembertTokenizer"))


FAMILY = Family("camembert", by_model_type("camembert"), read, (KEYS,), read_scores=read_scores)
