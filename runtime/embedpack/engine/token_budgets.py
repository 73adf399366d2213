"""Measurement of the fastest token budget of this host, on random token ids.

Small batches need little padding and stay in the caches; large ones read the weights less often. The optimum depends
on the width of the model and on the caches and memory of the host.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedpack.engine.session import Adapter, Session
from embedpack.inputs.batching import token_budget_batches
from embedpack.inputs.processor import ModelInput, Processor

CANDIDATES = (64, 128, 256, 512, 1024)
MIN_TOKENS, MAX_TOKENS = 6, 128
# Number of texts, and of a model that is slower than MAX_SECONDS_PER_TOKEN.
TEXTS, TEXTS_IF_SLOW = 64, 24
MAX_SECONDS_PER_TOKEN = 1e-3
# Passes over all candidates: at least the minimum, more within the time.
MIN_PASSES, MAX_PASSES, MAX_SECONDS = 3, 9, 6.0
# A smaller budget within this tolerance is preferred: it takes less memory and returns first results earlier.
TIME_TOLERANCE = 0.03
SEED = 0


@dataclass(frozen=True)
class BudgetTimes:
    """Best token budget of a measurement, and the speed by budget."""

    best: int
    tokens_per_second: dict[int, float]


@dataclass(frozen=True)
class TimedGraph:
    """A loaded text graph, the output that is computed, and its inputs."""

    session: Session
    output: str
    processor: Processor
    adapter: Adapter | None = None


def measure_budgets(graph: TimedGraph, vocabulary: int) -> BudgetTimes:
    """Time passes over texts of mixed lengths with every budget in turn, and compare the medians."""
    rng = np.random.default_rng(SEED)
    longest = min(MAX_TOKENS, graph.processor.tokenizer.max_tokens)
    one = [_random_text(rng, vocabulary, longest)]
    _pass(graph, one, longest)
    slow = _pass(graph, one, longest) / longest > MAX_SECONDS_PER_TOKEN
    low, high = np.log(min(MIN_TOKENS, longest)), np.log(longest)
    lengths = np.rint(np.exp(rng.uniform(low, high, TEXTS_IF_SLOW if slow else TEXTS))).astype(int)
    texts = [_random_text(rng, vocabulary, length) for length in lengths]
    # Larger budgets than that of all texts would make no difference.
    budgets = [budget for budget in CANDIDATES if budget <= lengths.sum()]
    times: dict[int, list[float]] = {budget: [] for budget in budgets}
    begin = time.perf_counter()
    for index in range(MAX_PASSES):
        if index >= MIN_PASSES and time.perf_counter() - begin > MAX_SECONDS:
            break
        for budget in budgets:
            times[budget].append(_pass(graph, texts, budget))
    medians = {budget: float(np.median(seconds)) for budget, seconds in times.items()}
    speeds = {budget: float(lengths.sum() / seconds) for budget, seconds in medians.items()}
    return BudgetTimes(best_budget(medians), speeds)


def best_budget(seconds: dict[int, float]) -> int:
    """Smallest budget that is within TIME_TOLERANCE of the fastest, from the seconds of a pass by budget."""
    limit = min(seconds.values()) * (1 + TIME_TOLERANCE)
    return min(budget for budget, duration in seconds.items() if duration <= limit)


def _pass(graph: TimedGraph, inputs: Sequence[ModelInput], budget: int) -> float:
    """Seconds of one pass over all texts."""
    batches = token_budget_batches([len(text.ids) for text in inputs], budget)
    feeds = [graph.processor.collate([inputs[row] for row in rows], []) for rows in batches]
    begin = time.perf_counter()
    for feed in feeds:
        graph.session.run([graph.output], feed, graph.adapter)
    return time.perf_counter() - begin


def _random_text(rng: np.random.Generator, vocabulary: int, length: int) -> ModelInput:
    return ModelInput(rng.integers(0, vocabulary, length), slice(0, length), np.zeros(length, np.bool_))
