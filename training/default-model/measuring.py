"""What a model reaches on evaluation sets: a figure for every query, or for every resampling of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from encoder import Encoder, Prompts, States, by_length, chunks, encode
from evaluation_sets import Search
from late_interaction import DOCUMENTS, Projector, maxsim
from scoring import ndcg_at_10, paired, scores, spearman
from texts import Graded
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

DIMENSIONS = (384, 64)
RESAMPLINGS = 1000


@dataclass(frozen=True)
class Embedded:
    """Texts in both forms: single vectors [texts, 384], and one tensor [tokens, 128] for each text."""

    single: Tensor
    multi: list[Tensor]


@torch.no_grad()
def embed(encoder: Encoder, projector: Projector, task: str, texts: Sequence[str]) -> Embedded:
    """Run the model once for both forms."""
    order = by_length(texts)
    single, multi = [], []
    for group in chunks([texts[index] for index in order]):
        states = encoder.together(group)
        single.append(states.mean())
        projected = projector(states, task)
        lengths = states.mask.sum(1).tolist()
        multi += [rows[:length] for rows, length in zip(projected.values, lengths, strict=True)]
    places = sorted(range(len(order)), key=order.__getitem__)
    return Embedded(torch.cat(single)[places], [multi[place] for place in places])


def padded(rows: Sequence[Tensor]) -> States:
    """Token vectors of some texts, padded to the longest."""
    masks = [torch.ones(len(one), dtype=torch.int64) for one in rows]
    return States(pad_sequence(list(rows), batch_first=True), pad_sequence(masks, batch_first=True))


def late_scores(queries: Sequence[Tensor], passages: Sequence[Tensor]) -> Tensor:
    """MaxSim [queries, passages]; passages of like length are compared together."""
    asked = padded(queries)
    order = sorted(range(len(passages)), key=lambda place: len(passages[place]))
    found = torch.empty(len(queries), len(passages))
    for start in range(0, len(order), DOCUMENTS):
        places = order[start : start + DOCUMENTS]
        found[:, places] = maxsim(asked, padded([passages[place] for place in places]))
    return found


def search_base(encoder: Encoder, one: Search) -> dict[str, Tensor]:
    """nDCG@10 of every query with single vectors, for each number of dimensions; no prompts, as it was trained."""
    queries, passages = encode(encoder, one.queries, ""), encode(encoder, one.passages, "")
    return {str(size): ndcg_at_10(scores(queries, passages, size), one.relevant) for size in DIMENSIONS}


def search_task(encoder: Encoder, projector: Projector, task: str, one: Search, prompts: Prompts) -> dict[str, Tensor]:
    """nDCG@10 of every query, for each number of dimensions, and with multi-vectors under the name "multi"."""
    queries = embed(encoder, projector, task, [prompts.query + text for text in one.queries])
    passages = embed(encoder, projector, task, [prompts.passage + text for text in one.passages])
    found = {str(size): ndcg_at_10(scores(queries.single, passages.single, size), one.relevant) for size in DIMENSIONS}
    return {**found, "multi": ndcg_at_10(late_scores(queries.multi, passages.multi), one.relevant)}


def similarities(encoder: Encoder, pairs: Sequence[Graded], prompt: str) -> dict[str, Tensor]:
    """Cosine of every pair, for each number of dimensions."""
    left = encode(encoder, [pair.left for pair in pairs], prompt)
    right = encode(encoder, [pair.right for pair in pairs], prompt)
    return {str(size): paired(left, right, size) for size in DIMENSIONS}


def mean_interval(difference: Tensor, seed: int) -> list[float]:
    """The 95 % interval of a mean difference, by resampling queries: a set of 500 cannot tell half a point."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(difference), (RESAMPLINGS, len(difference)), generator=generator)
    return bounds(difference[picks].mean(1))


def rank_interval(base: Tensor, adapter: Tensor, grades: Tensor, seed: int) -> list[float]:
    """The 95 % interval of a difference in Spearman's correlation with the grades, by resampling pairs."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(RESAMPLINGS):
        picks = torch.randint(len(grades), (len(grades),), generator=generator)
        found.append(spearman(adapter[picks], grades[picks]) - spearman(base[picks], grades[picks]))
    return bounds(torch.tensor(found, dtype=torch.float64))


def bounds(resampled: Tensor) -> list[float]:
    """What 95 % of the values lie between."""
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=resampled.dtype)).tolist()
    return [round(low, 4), round(high, 4)]
