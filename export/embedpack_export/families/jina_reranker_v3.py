"""jina-reranker-v3: Qwen3, which scores a list of documents in one prompt by cosines of states at marks.

Its code (`rerank`) cuts a query to 512 tokens and a document to 2048, and takes up to 125 documents at a time.
"""

from __future__ import annotations

from embedpack_export.families._listwise import keys, read_listwise
from embedpack_export.families.model import Family, ListPrompt, Model
from embedpack_export.families.qwen3 import is_listwise
from embedpack_export.sources.checkpoint import Checkpoint

KEYS = keys("jina_reranker_v3")
EMBED, RERANK = "<|embed_token|>", "<|rerank_token|>"
SYSTEM = (
    "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the passages based on how "
    "relevant they are to the query. If the query is a question, how relevant a passage is depends on how well it "
    "answers the question. If not, try to analyze the intent of the query and assess how well each passage satisfies "
    "the intent. If an instruction is provided, you should follow the instruction when determining the ranking."
    "<|im_end|>\n"
)
HEADER = (
    "<|im_start|>user\nI will provide you with {count} passages, each indicated by a numerical identifier. Rank the "
    "passages based on their relevance to query: {query}"
)
ASKED = f"\n<query>\n{{query}}{RERANK}\n</query>"
END = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
PROMPT = ListPrompt(
    before=f"{SYSTEM}{HEADER}\n",
    document=f'<passage id="{{index}}">\n{{document}}{EMBED}\n</passage>',
    between="\n",
    after=f"{ASKED}{END}",
    document_mark=EMBED,
    query_mark=RERANK,
    marks=("<|im_start|>", "<|im_end|>", "<think>", "</think>", EMBED, RERANK),
    stripped=(EMBED, RERANK),
    max_query_tokens=512,
    max_document_tokens=2048,
    max_documents=125,
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint."""
    return read_listwise(checkpoint, KEYS, PROMPT)


FAMILY = Family("jina_reranker_v3", is_listwise, read, (KEYS,))
