"""Settings of a checkpoint of ColBERT's own code (`HF_ColBERT`): artifact.metadata next to its weights.

https://github.com/stanford-futuredata/ColBERT writes it; files without a key have the defaults of that code.
"""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.sources.checkpoint import Checkpoint, read_json
from embedpack_export.sources.key_rules import check_keys
from embedpack_export.sources.multi_vector_config import DOCUMENT, QUERY, Expansion, MultiVectorConfig, SideSettings
from embedpack_export.sources.multi_vector_files import QUERY_LENGTH, Tokens
from embedpack_export.sources.multi_vector_keys import ARTIFACT
from embedpack_export.sources.sentence_transformers import SentenceTransformersConfig

ARCHITECTURE = "HF_ColBERT"
METADATA_FILE = "artifact.metadata"
# Projection of hidden states, a matrix [dimensions, hidden] without a bias.
PROJECTION = "linear"


class _Metadata(msgspec.Struct, frozen=True):
    query_token_id: str = "[unused0]"
    doc_token_id: str = "[unused1]"
    query_maxlen: Tokens = QUERY_LENGTH
    doc_maxlen: Tokens | None = None
    attend_to_mask_tokens: bool = False
    mask_punctuation: bool = True
    dim: int | None = None


def is_colbert(checkpoint: Checkpoint) -> bool:
    """True for a checkpoint of ColBERT's own code."""
    architectures = checkpoint.config.get("architectures")
    return isinstance(architectures, list) and ARCHITECTURE in architectures


def with_colbert_metadata(config: SentenceTransformersConfig, checkpoint: Checkpoint) -> SentenceTransformersConfig:
    """The configuration of a checkpoint for which `is_colbert` is true, with its settings; errors as below."""
    if config.modules:
        raise CheckpointError(
            f"{config.folder}: architectures has {ARCHITECTURE}, and modules.json has {', '.join(config.modules)}, "
            "which give single vectors; remove modules.json, or export the model that it belongs to"
        )
    multi = read_colbert_metadata(checkpoint)
    files = {**config.files, METADATA_FILE: multi.path}
    return replace(config, files=files, max_tokens=multi.max_tokens, multi=multi)


def read_colbert_metadata(checkpoint: Checkpoint) -> MultiVectorConfig:
    """Read the settings of a checkpoint for which `is_colbert` is true.

    Raises:
        CheckpointError: the file or the projection is missing or damaged, a key is unknown, or both contradict.
    """
    path = checkpoint.folder / METADATA_FILE
    check_keys(path, read_json(path, dict[str, Any]), ARTIFACT)
    found = read_json(path, _Metadata)
    matrix = checkpoint.tensors.get(f"{PROJECTION}.weight")
    if matrix is None or len(matrix.shape) != 2:
        raise CheckpointError(
            f"{checkpoint.folder}: architectures has {ARCHITECTURE}, but {PROJECTION}.weight, its projection, is "
            "missing or no matrix; download the model again"
        )
    if found.dim not in (None, matrix.shape[0]):
        raise CheckpointError(
            f"{path}: dim is {found.dim}, {PROJECTION}.weight has {matrix.shape[0]} rows; are both of one model?"
        )
    return MultiVectorConfig(
        path=path,
        sides={
            QUERY: SideSettings(found.query_token_id, "", found.query_maxlen),
            DOCUMENT: SideSettings(found.doc_token_id, "", found.doc_maxlen),
        },
        expansion=Expansion(found.query_maxlen, found.attend_to_mask_tokens, None),
        skipped=tuple(string.punctuation) if found.mask_punctuation else (),
        skips_unknown=True,
        needs_document_length=found.doc_maxlen is None,
        prompts={},
        default_prompt_name=None,
        mean_score=False,
        layers=(),
    )
