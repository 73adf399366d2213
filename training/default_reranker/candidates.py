"""Queries with the documents that single vectors find, and their order by other scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.default_model.encoder import NO_PROMPTS, Encoder, encode
from training.default_model.evaluation_sets import SearchSet
from training.default_model.scoring import ndcg_at_10, scores
from training.default_reranker.cross_encoder import CrossEncoder


@dataclass(frozen=True)
class Candidates:
    """Nearest documents of every query.

    Attributes:
        queries: texts of the queries.
        documents: texts of all documents.
        relevant: indices of the right documents of every query.
        nearest: int64 [queries, k], indices of the candidates, nearest first.
        cosines: float32 [queries, k].
    """

    queries: Sequence[str]
    documents: Sequence[str]
    relevant: Sequence[set[int]]
    nearest: Tensor
    cosines: Tensor

    @classmethod
    def find(cls, model: Encoder, data: SearchSet, depth: int) -> Candidates:
        """Search with the backbone's single vectors, without prompts."""
        queries, documents = (encode(model, texts, NO_PROMPTS.query) for texts in (data.queries, data.passages))
        best = scores(queries.float(), documents.float(), queries.shape[1]).topk(min(depth, len(documents)), dim=1)
        return cls(data.queries, data.passages, data.relevant, best.indices, best.values)

    @torch.no_grad()
    def pair_scores(self, encoder: CrossEncoder) -> Tensor:
        """Scores [queries, k] of the candidates by the cross-encoder."""
        flat = [
            (query, self.documents[index])
            for query, row in zip(self.queries, self.nearest.tolist(), strict=True)
            for index in row
        ]
        found = encoder([query for query, _ in flat], [document for _, document in flat])
        return found.view(self.nearest.shape)

    def right(self) -> Tensor:
        """1 for the right candidates, else 0, float32 [queries, k]: the best order."""
        rows = zip(self.nearest.tolist(), self.relevant, strict=True)
        return torch.tensor([[float(index in answers) for index in row] for row, answers in rows])

    def ndcg(self, values: Tensor) -> Tensor:
        """nDCG@10 [queries] of the candidates in the order of their values [queries, k]; what was not found is lost."""
        order = values.argsort(dim=1, descending=True, stable=True)
        ranked = self.nearest.gather(1, order)
        places = torch.arange(ranked.shape[1], 0, -1, dtype=torch.float32).expand(ranked.shape)
        full = torch.zeros(len(self.queries), len(self.documents)).scatter(1, ranked, places)
        return ndcg_at_10(full, self.relevant)
