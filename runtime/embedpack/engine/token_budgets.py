"""Which budget of tokens makes batches fastest on this host: a short measurement with ids drawn by chance.

Small batches waste little on padding and stay in the caches; large ones read the weights less often. Where the best
lies depends on the width of the model, the caches and the memory of the host.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.engine.session import Adapter, GraphSession
from embedpack.inputs.batching import token_budget_batches
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.pack.graph_io import SENTENCE_EMBEDDING

CANDIDATES = (64, 128, 256, 512, 1024)
SHORTEST, LONGEST = 6, 128
TEXTS, FEWER_TEXTS = 64, 24
# Above it a pass over TEXTS would take too long.
SLOW_SECONDS_PER_TOKEN = 1e-3
# Passes over all candidates: at least three, more while there is time.
MIN_PASSES, MAX_PASSES, SECONDS = 3, 9, 6.0
# A smaller budget that is this close is preferred: it takes less memory, and its first results come earlier.
CLOSE = 0.03
SEED = 0


@dataclass(frozen=True)
class BudgetTimes:
    """What was measured: the best budget, and the tokens a second with each."""

    best: int
    tokens_per_second: dict[int, float]


def measure_budgets(
    session: GraphSession, processor: Processor, vocabulary: int, adapter: Adapter | None = None
) -> BudgetTimes:
    """Time passes over texts of mixed lengths with every budget in turn; the median of each counts.

    Args:
        session: a text graph.
        processor: of its inputs.
        vocabulary: ids are below it.
        adapter: of a switchable graph.
    """
    rng = np.random.default_rng(SEED)
    longest = min(LONGEST, processor.tokenizer.max_tokens)
    one = [_text(rng, vocabulary, longest)]
    _pass(session, processor, one, longest, adapter)
    slow = _pass(session, processor, one, longest, adapter) / longest > SLOW_SECONDS_PER_TOKEN
    low, high = np.log(min(SHORTEST, longest)), np.log(longest)
    lengths = np.rint(np.exp(rng.uniform(low, high, FEWER_TEXTS if slow else TEXTS))).astype(int)
    texts = [_text(rng, vocabulary, length) for length in lengths]
    # A budget that holds all texts is the largest that means anything.
    budgets = [budget for budget in CANDIDATES if budget <= lengths.sum()]
    times: dict[int, list[float]] = {budget: [] for budget in budgets}
    begin = time.perf_counter()
    for index in range(MAX_PASSES):
        if index >= MIN_PASSES and time.perf_counter() - begin > SECONDS:
            break
        for budget in budgets:
            times[budget].append(_pass(session, processor, texts, budget, adapter))
    medians = {budget: float(np.median(found)) for budget, found in times.items()}
    return BudgetTimes(
        best_budget(medians), {budget: float(lengths.sum() / found) for budget, found in medians.items()}
    )


def best_budget(seconds: dict[int, float]) -> int:
    """The smallest budget that is about as fast as any, from the seconds of a pass with each."""
    fastest = min(seconds.values())
    return min(budget for budget, found in seconds.items() if found <= fastest * (1 + CLOSE))


def _text(rng: np.random.Generator, vocabulary: int, length: int) -> npt.NDArray[np.int64]:
    return rng.integers(0, vocabulary, length)


def _pass(
    session: GraphSession,
    processor: Processor,
    texts: Sequence[npt.NDArray[np.int64]],
    budget: int,
    adapter: Adapter | None,
) -> float:
    """Seconds of one pass."""
    items = [ModelInput(ids, slice(0, len(ids)), np.zeros(len(ids), np.bool_)) for ids in texts]
    batches = token_budget_batches([len(ids) for ids in texts], budget)
    feeds = [processor.collate([items[row] for row in rows], []) for rows in batches]
    begin = time.perf_counter()
    for feed in feeds:
        session.run([SENTENCE_EMBEDDING], feed, adapter)
    return time.perf_counter() - begin
