"""jina-reranker-v3: Qwen3, which scores a list of documents in one prompt by cosines of states at marks.

Its code (`rerank`) cuts a query to 512 tokens and a document to 2048, and takes up to 125 documents at a time.
"""

from __future__ import annotations

from embedpack.errors import CheckpointError
from embedpack_export.families._listwise import has_window_types, keys, read_listwise
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


def claims(checkpoint: Checkpoint) -> bool:
    """True for a listwise reranker without windows in `layer_types`, which jina-reranker-v3.5 has."""
    return is_listwise(checkpoint) and not has_window_types(checkpoint)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint; CheckpointError if other keys are those of jina-reranker-v3.5."""
    windows, name = checkpoint.config.get("use_sliding_window"), str(checkpoint.config.get("_name_or_path"))
    if windows or name.endswith("v3.5"):
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: layer_types has no sliding_attention, so this is no "
            f"jina-reranker-v3.5, and use_sliding_window is {windows}, _name_or_path {name!r}, so it is no "
            "jina-reranker-v3; restore the config.json of the model"
        )
    return read_listwise(checkpoint, KEYS, PROMPT)


FAMILY = Family("jina_reranker_v3", claims, read, (KEYS,))
