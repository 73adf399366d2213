"""Pairs of queries and documents that pass through a model while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.engine.golden_scores import PAIRS
from embedpack.engine.options import ScoreSettings
from embedpack.engine.pair_scores import PairInputs, PairReader
from embedpack.inputs.batching import token_budget_batches
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_groups import ScoreGroup, score_groups
from embedpack_export.stages.inputs import TOKEN_BUDGET, CollatedBatch, TaskInputs, calibration_tokens

# Every second pair is part of the statistics; rankings need more of them than statistics do.
COMPARED = 2


@dataclass(frozen=True)
class ScoreInputs:
    """Groups and golden pairs as inputs of a graph."""

    reader: PairReader
    groups: Sequence[ScoreGroup]
    pairs: PairInputs  # those of all groups, in their order
    golden: PairInputs
    rows: Sequence[npt.NDArray[np.intp]]  # rows of `pairs.inputs` in each batch
    observed: int  # number of batches, from the first, that are part of the statistics
    batches: TaskInputs  # the batches, and the golden pairs alone

    def scores(self, outputs: Sequence[Float32]) -> Float32:
        """Scores of all documents of the groups, float32 [documents], from the outputs of the graph for each batch."""
        logits = np.empty(len(self.pairs.inputs), np.float32)
        for rows, values in zip(self.rows, outputs, strict=True):
            logits[rows] = values
        return self.reader.scores(logits, self.pairs)


def score_inputs(plan: ExportPlan, reader: PairReader) -> ScoreInputs:
    """Read the groups of the calibration texts, as many as fit the work, and the golden pairs."""
    groups, pairs = _bounded(plan, score_groups(plan.calibration), reader)
    numbers = np.arange(len(pairs.inputs))
    observed, others = (list(_batches(pairs, numbers[start::COMPARED])) for start in range(COMPARED))
    rows = [*observed, *others]
    golden = _joined(reader.read(pair.query, [pair.document], ScoreSettings()) for pair in PAIRS)
    batches = TaskInputs(
        [_collated(plan, pairs, batch) for batch in rows],
        [_collated(plan, golden, [row]) for row in range(len(golden.inputs))],
    )
    return ScoreInputs(reader, groups, pairs, golden, rows, len(observed), batches)


def _bounded(plan: ExportPlan, groups: Sequence[ScoreGroup], reader: PairReader) -> tuple[list[ScoreGroup], PairInputs]:
    """Evenly spaced groups whose work is bounded, and their pairs."""
    read = [reader.read(group.query, group.documents, ScoreSettings()) for group in groups]
    tokens = sum(len(each.ids) for pairs in read for each in pairs.inputs)
    count = min(len(groups), max(1, int(len(groups) * COMPARED * calibration_tokens(plan) / tokens)))
    chosen = np.linspace(0, len(groups) - 1, count).astype(int).tolist()
    return [groups[row] for row in chosen], _joined(read[row] for row in chosen)


def _joined(parts: Iterable[PairInputs]) -> PairInputs:
    """Pairs of several queries as one list; documents are counted through."""
    inputs, documents, first = [], [], 0
    for part in parts:
        inputs += part.inputs
        documents.append(part.documents + first)
        first += int(part.documents[-1]) + 1
    return PairInputs(inputs, np.concatenate(documents))


def _batches(pairs: PairInputs, rows: npt.NDArray[np.intp]) -> Iterable[npt.NDArray[np.intp]]:
    lengths = [len(pairs.inputs[row].ids) for row in rows]
    return (rows[batch] for batch in token_budget_batches(lengths, TOKEN_BUDGET))


def _collated(plan: ExportPlan, pairs: PairInputs, rows: Iterable[int]) -> CollatedBatch:
    items = tuple(pairs.inputs[row] for row in rows)
    return CollatedBatch(items, plan.processor.collate(items, []))
