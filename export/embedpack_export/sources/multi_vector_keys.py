"""Keys of the files of models for multi-vectors: of PyLate, sentence-transformers' MultiVectorEncoder and ColBERT."""

from __future__ import annotations

from typing import Any

from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, NoEffect, Only, Rule, no_effect
from embedpack_export.sources.sentence_transformers_keys import DENSE, LIMITS, SETTINGS

TOKENS: dict[str, Rule] = {
    name: Only(("token_embeddings", None), "export a model whose module changes its token embeddings")
    for name in ("module_input_name", "module_output_name")
}
TOKEN_DENSE = KeyTable(
    "1_Dense/config.json (multi-vectors)",
    {
        **DENSE.rules,
        **TOKENS,
        "use_residual": Followed("the input, or its product with residual.weight, is added to the result"),
    },
)
TOKEN_NORMALIZE = KeyTable("3_Normalize/config.json (multi-vectors)", TOKENS)


OF_COLBERT_TRAINING = """bsize accumsteps lr maxsteps save_every warmup warmup_bert nway use_ib_negatives reranker
distillation_alpha ignore_scores model_name checkpoint triples collection queries resume"""
OF_COLBERT_RUNS = """index_name index_path index_root index_bsize nbits kmeans_niters ncells ndocs
centroid_score_threshold load_index_with_mmap pool_factor clustering_mode protected_tokens overwrite root experiment
name rank nranks amp gpus avoid_fork_if_possible meta"""


def only_documents(value: Any) -> str | None:
    """Reason to refuse a `skiplist_tasks`."""
    if value in (None, "document", ["document"]):
        return None
    return "supported: document; export a model that skips no tokens of queries"


MASK = KeyTable(
    "2_MultiVectorMask/config.json",
    {
        "skiplist_words": Followed("tokens whose vectors are left out of those of documents"),
        "skiplist_tasks": Checked("document", only_documents),
        "keep_only_token_ids": Only((None,), "export a model that keeps the vectors of all tokens"),
    },
)
SIMILARITIES = ("MaxSim", "maxsim", "meanmaxsim", "cosine", None)
MULTI_SETTINGS = KeyTable(
    "config_sentence_transformers.json (multi-vectors)",
    {
        **SETTINGS.rules,
        "model_type": Followed("ColBERT, of PyLate, or MultiVectorEncoder"),
        "similarity_fn_name": Only(SIMILARITIES, "export a model that is scored by MaxSim"),
        **dict.fromkeys(("query_prefix", "document_prefix"), Followed("marker of queries and of documents")),
        **dict.fromkeys(("query_length", "document_length"), Followed("limit of queries and of documents")),
        "do_query_expansion": Followed("queries are filled up to query_length"),
        "attend_to_expansion_tokens": Followed("tokens that queries are filled up with are attended to"),
        "skiplist_words": Followed("tokens whose vectors are left out of those of documents; needed"),
    },
)
MULTI_LIMITS = KeyTable(
    "sentence_bert_config.json (multi-vectors)",
    {
        **LIMITS.rules,
        "max_seq_length": NoEffect("queries and documents have limits of their own"),
        **dict.fromkeys(("query_length", "document_length"), Followed("limit of queries and of documents")),
        "query_expansion": Followed("queries are filled up: strategy fixed or min, length, attend, token"),
    },
)
ARTIFACT = KeyTable(
    "artifact.metadata",
    {
        "dim": Followed("dimensions, those of linear.weight"),
        "query_maxlen": Followed("tokens that queries are filled up to, and their limit"),
        "doc_maxlen": Followed("limit of documents"),
        **dict.fromkeys(("query_token_id", "doc_token_id"), Followed("marker of queries and of documents")),
        "mask_punctuation": Followed("vectors of punctuation are left out of those of documents"),
        "attend_to_mask_tokens": Followed("tokens that queries are filled up with are attended to"),
        "similarity": Only(("cosine", None), "export a model that is scored by MaxSim of cosines"),
        "interaction": Only(("colbert", None), "export a model that is scored by MaxSim"),
        "relu": Only((False, None), "export a model that is scored by MaxSim of cosines"),
        **no_effect("markers in texts, which the token ids replace", ("query_token", "doc_token")),
        **no_effect("used in training alone", OF_COLBERT_TRAINING.split()),
        **no_effect("of indexes, search and runs", OF_COLBERT_RUNS.split()),
    },
)
