"""Queries with documents, made of the calibration texts: rankings without relevance judgements."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedpack.inputs.pair_texts import Document
from embedpack_export.arrays import Float64
from embedpack_export.planning.calibration_texts import CalibrationSet

# Documents of a query: those that share most with it, which are hard to order, and others.
NEAR, OTHERS = 10, 6
# Length of the queries that are cut out of longer texts.
QUERY_CHARACTERS = 200
FEATURES = 4096
SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s|\n")


@dataclass(frozen=True)
class ScoreGroup:
    """A query and its documents."""

    query: str
    documents: tuple[Document, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Documents that are texts."""
        return tuple(document for document in self.documents if isinstance(document, str))


def score_groups(calibration: CalibrationSet) -> list[ScoreGroup]:
    """Make the groups: queries are the texts of that kind, or the first sentences of all texts if there are none."""
    queries = [text.text for text in calibration.texts if text.kind == "query"]
    documents = [text.text for text in calibration.texts if text.kind != "query"]
    if not queries or not documents:
        documents = [text.text for text in calibration.texts]
        queries = list(dict.fromkeys(map(_first_sentence, documents)))
    near = np.argsort(-_trigrams(queries) @ _trigrams(documents).T, axis=1, kind="stable")
    return [ScoreGroup(query, _chosen(documents, order.tolist())) for query, order in zip(queries, near, strict=True)]


def _chosen(documents: Sequence[str], order: Sequence[int]) -> tuple[str, ...]:
    """The nearest documents, and others evenly spaced among the rest, in the order of the texts."""
    rest = order[NEAR:]
    spaced = np.linspace(0, len(rest) - 1, min(OTHERS, len(rest))).astype(int)
    return tuple(documents[row] for row in sorted({*order[:NEAR], *(rest[place] for place in spaced)}))


def _first_sentence(text: str) -> str:
    sentence = SENTENCE_END.split(text.strip(), maxsplit=1)[0].strip()
    return (sentence or text.strip())[:QUERY_CHARACTERS]


def _trigrams(texts: Sequence[str]) -> Float64:
    """Vectors of length 1 of the trigrams of characters of each text, [texts, FEATURES]."""
    counts = np.zeros((len(texts), FEATURES))
    for row, text in enumerate(texts):
        padded = f" {text.lower()} "
        for start in range(len(padded) - 2):
            counts[row, zlib.crc32(padded[start : start + 3].encode("utf-8", "replace")) % FEATURES] += 1
    weights = np.log1p(len(texts) / np.maximum(1, (counts > 0).sum(axis=0)))
    vectors = np.log1p(counts) * weights
    normalized: Float64 = vectors / np.maximum(1e-12, np.linalg.norm(vectors, axis=1, keepdims=True))
    return normalized
