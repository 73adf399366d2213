"""RoBERTa: the layers and positions of XLM-RoBERTa (all-roberta-large, stsb-roberta, German and French models)."""

from __future__ import annotations

from embedpack_export.families import Family
from embedpack_export.families.xlm_roberta import KEYS, read

FAMILY = Family(read, (KEYS,))
