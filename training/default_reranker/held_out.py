"""Reranking of held-out training pairs: the figures that settings are chosen by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.default_model.encoder import load_backbone
from training.default_model.evaluation_sets import SearchSet
from training.default_reranker.candidates import Candidates
from training.default_reranker.cross_encoder import CrossEncoder
from training.default_reranker.settings import FUSION_WEIGHTS, SOURCES, Settings
from training.hard_negatives.sources import read_source


def read_held_out(backbone: Path, folder: Path, settings: Settings) -> dict[str, Candidates]:
    """Read the held-out pairs of every source; candidates of a query are held-out documents."""
    model = load_backbone(backbone, settings.max_tokens)
    found = {}
    for source in SOURCES:
        pairs = read_source(source, folder).held_out
        queries = [pair.query for pair in pairs[: settings.held_out_queries]]
        data = SearchSet(queries, [pair.passage for pair in pairs], [{index} for index in range(len(queries))])
        found[source.name] = Candidates.find(model, data, settings.held_out_documents)
    return found


def report(encoder: CrossEncoder, sets: dict[str, Candidates]) -> Iterator[str]:
    """Lines of nDCG@10: by cosine, by the cross-encoder, and by weighted sums of both; the last line is the mean."""
    totals: dict[str, float] = {}
    for name, data in sets.items():
        pairs = data.pair_scores(encoder)
        orders = {"cosine": data.cosines, "reranker": pairs}
        orders |= {f"cosine + {weight} x": data.cosines + weight * pairs for weight in FUSION_WEIGHTS}
        means = {order: data.ndcg(values).mean().item() for order, values in orders.items()}
        totals = {order: totals.get(order, 0.0) + mean / len(sets) for order, mean in means.items()}
        yield line(name, means)
    yield line("mean", totals)


def line(name: str, means: dict[str, float]) -> str:
    """One line of figures."""
    return f"{name}: nDCG@10 " + ", ".join(f"{order} {mean:.4f}" for order, mean in means.items())
