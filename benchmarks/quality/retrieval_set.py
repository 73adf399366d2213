"""Sets of queries and documents, as `embedpack bench` reads them."""

from __future__ import annotations

from embedpack_export.evaluation.sets.data import RetrievalSet
from embedpack_export.evaluation.sets.reading import read_retrieval_set as read_set

__all__ = ["RetrievalSet", "read_set"]
