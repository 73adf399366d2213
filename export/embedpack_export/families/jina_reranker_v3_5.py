"""jina-reranker-v3.5: jina-reranker-v3 with sliding windows of attention, another prompt and larger limits.

The published files do not state the version, but `layer_types` does: v3 has no windows. The query has a mark at its
first place too; the last one counts.
"""

from __future__ import annotations

from dataclasses import replace

from embedpack_export.families._listwise import has_window_types, keys, read_listwise
from embedpack_export.families.jina_reranker_v3 import ASKED, END, HEADER, RERANK, SYSTEM
from embedpack_export.families.jina_reranker_v3 import PROMPT as PROMPT_OF_V3
from embedpack_export.families.model import Family, Model
from embedpack_export.families.qwen3 import is_listwise
from embedpack_export.sources.checkpoint import Checkpoint

KEYS = keys("jina_reranker_v3_5")
RANKING = (
    "\nPlease provide the ranking of all passages based on their relevance to the search query, in descending order of "
    "relevance, with each label enclosed in square brackets (e.g., [2] > [1] > [3] > [0])."
)
PROMPT = replace(
    PROMPT_OF_V3,
    before=f"{SYSTEM}{HEADER}{RERANK}\n",
    after=f"{ASKED}{RANKING}{END}",
    stripped=(*PROMPT_OF_V3.stripped, "<|score_token|>"),
    max_query_tokens=1024,
    max_document_tokens=8192,
)


def claims(checkpoint: Checkpoint) -> bool:
    """True for a listwise reranker with windows in some layers."""
    return is_listwise(checkpoint) and has_window_types(checkpoint)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint."""
    return read_listwise(checkpoint, KEYS, PROMPT)


FAMILY = Family("jina_reranker_v3_5", claims, read, (KEYS,))
