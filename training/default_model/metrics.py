"""Metrics of a model on evaluation sets: values by query or pair, and bootstrap intervals of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.default_model.encoder import Encoder, Prompts, States, batches, by_length, encode
from training.default_model.evaluation_sets import SearchSet
from training.default_model.late_interaction import DOCUMENTS, Projector, maxsim
from training.default_model.scoring import ndcg_at_10, paired, scores, spearman
from training.default_model.training_sets import Graded

DIMENSIONS = (384, 64)
RESAMPLES = 1000


@dataclass(frozen=True)
class Embedded:
    """Vectors of texts: single vectors [texts, 384], and a multi-vector [tokens, 128] for each text."""

    single: Tensor
    multi: list[Tensor]


@torch.no_grad()
def embed(encoder: Encoder, projector: Projector, task: str, texts: Sequence[str]) -> Embedded:
    """Compute single vectors and multi-vectors in one run of the model."""
    order = by_length(texts)
    single, multi = [], []
    for batch in batches([texts[index] for index in order]):
        states = encoder.states(batch)
        single.append(states.mean())
        multi += projector(states, task).rows()
    positions = sorted(range(len(order)), key=order.__getitem__)
    return Embedded(torch.cat(single)[positions], [multi[position] for position in positions])


def late_scores(queries: Sequence[Tensor], passages: Sequence[Tensor]) -> Tensor:
    """MaxSim scores [queries, passages], computed for passages of similar length together."""
    padded_queries = States.padded(queries)
    order = sorted(range(len(passages)), key=lambda index: len(passages[index]))
    result = torch.empty(len(queries), len(passages))
    for start in range(0, len(order), DOCUMENTS):
        indices = order[start : start + DOCUMENTS]
        result[:, indices] = maxsim(padded_queries, States.padded([passages[index] for index in indices]))
    return result


def search_base(encoder: Encoder, data: SearchSet) -> dict[str, Tensor]:
    """nDCG@10 of every query by number of dimensions, without prompts, as the backbone was trained."""
    queries, passages = encode(encoder, data.queries, ""), encode(encoder, data.passages, "")
    return {str(size): ndcg_at_10(scores(queries, passages, size), data.relevant) for size in DIMENSIONS}


def search_task(
    encoder: Encoder, projector: Projector, task: str, data: SearchSet, prompts: Prompts
) -> dict[str, Tensor]:
    """nDCG@10 of every query by number of dimensions, and of multi-vectors under the key "multi"."""
    queries = embed(encoder, projector, task, [prompts.query + text for text in data.queries])
    passages = embed(encoder, projector, task, [prompts.passage + text for text in data.passages])
    single = {
        str(size): ndcg_at_10(scores(queries.single, passages.single, size), data.relevant) for size in DIMENSIONS
    }
    return {**single, "multi": ndcg_at_10(late_scores(queries.multi, passages.multi), data.relevant)}


def similarities(encoder: Encoder, pairs: Sequence[Graded], prompt: str) -> dict[str, Tensor]:
    """Cosine of every pair, by number of dimensions."""
    left = encode(encoder, [pair.left for pair in pairs], prompt)
    right = encode(encoder, [pair.right for pair in pairs], prompt)
    return {str(size): paired(left, right, size) for size in DIMENSIONS}


def mean_interval(difference: Tensor, seed: int) -> list[float]:
    """95 % bootstrap interval of a mean difference over queries."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(difference), (RESAMPLES, len(difference)), generator=generator)
    return quantiles_95(difference[picks].mean(1))


def rank_interval(base: Tensor, adapter: Tensor, grades: Tensor, seed: int) -> list[float]:
    """95 % bootstrap interval, over pairs, of a difference in Spearman's correlation with the grades."""
    generator = torch.Generator().manual_seed(seed)
    differences = []
    for _ in range(RESAMPLES):
        picks = torch.randint(len(grades), (len(grades),), generator=generator)
        differences.append(spearman(adapter[picks], grades[picks]) - spearman(base[picks], grades[picks]))
    return quantiles_95(torch.tensor(differences, dtype=torch.float64))


def quantiles_95(resampled: Tensor) -> list[float]:
    """2.5 % and 97.5 % quantile."""
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=resampled.dtype)).tolist()
    return [round(low, 4), round(high, 4)]
