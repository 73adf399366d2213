"""Queries and documents that pass through a model while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.engine.golden_scores import before_activation, golden_lists, golden_pairs
from embedpack.engine.graph_scores import open_reader
from embedpack.engine.options import ScoreSettings
from embedpack.engine.score_inputs import ScoreInputs, ScoreReader
from embedpack.inputs.batching import token_budget_batches
from embedpack.inputs.processor import ModelInput
from embedpack.pack.graph_io import MARK_INDEX
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_groups import ScoreGroup, score_groups
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.stages.calibration_images import calibration_images
from embedpack_export.stages.inputs import TOKEN_BUDGET, TaskInputs, calibration_tokens, collated
from embedpack_export.stages.staged_run import Feeds

# Every second input is part of the statistics; rankings need more of them than statistics do.
COMPARED = 2


@dataclass(frozen=True)
class GroupInputs:
    """Groups and golden pairs as inputs of a graph."""

    groups: Sequence[ScoreGroup]
    read: Sequence[ScoreInputs]  # inputs of each group
    golden: Sequence[ScoreInputs]  # inputs of each golden pair or list, whose scores have no activation
    rows: Sequence[npt.NDArray[np.intp]]  # rows of the inputs of all groups in each batch
    observed: int  # number of batches, from the first, that are part of the statistics
    batches: TaskInputs  # the batches, and the golden inputs alone

    @property
    def marks(self) -> list[Feeds]:
        """Places of marks in each batch, as an input of the head; empty for pairs."""
        batches = (*self.batches.calibration, *self.batches.golden)
        return [{name: batch.feeds[name] for name in (MARK_INDEX,) if name in batch.feeds} for batch in batches]

    def scores(self, outputs: Sequence[Float32]) -> Float32:
        """Scores of all documents of the groups, float32 [documents], from the outputs of the graph for each batch."""
        by_row = {
            row: value
            for rows, values in zip(self.rows, outputs, strict=False)
            for row, value in zip(rows.tolist(), values, strict=True)
        }
        return _scores(self.read, [by_row[row] for row in range(len(by_row))])

    def golden_scores(self, outputs: Sequence[Float32]) -> Float32:
        """Scores of the golden pairs, float32 [pairs], from the outputs of the graph for each batch."""
        return _scores(self.golden, [values[0] for values in outputs[len(self.rows) :]])


def group_inputs(plan: ExportPlan, scores: ScorePlan) -> GroupInputs:
    """Read the groups of the calibration texts, as many as fit the work, and the golden pairs."""
    reader = open_reader(plan.folder, scores.recipe, plan.processor)
    groups, read = _bounded(plan, score_groups(plan.calibration), reader)
    texts = sum(len(found.inputs) for found in read)
    if plan.model.vision is not None:
        groups.append(ScoreGroup(groups[0].query, tuple(calibration_images(plan.seed))))
        read.append(reader.read(groups[-1].query, groups[-1].documents, ScoreSettings()))
    inputs = [each for found in read for each in found.inputs]
    observed, others = (list(_batches(inputs, np.arange(start, texts, COMPARED))) for start in range(COMPARED))
    # Each image is alone, in the order of the vision graph's outputs.
    observed += [np.array([row]) for row in range(texts, len(inputs))]
    rows = [*observed, *others]
    reader = open_reader(plan.folder, before_activation(scores.recipe), plan.processor)
    golden = [
        reader.read(each.query, each.documents, ScoreSettings())
        for each in golden_lists(scores.recipe, golden_pairs(images=plan.model.vision is not None))
    ]
    batches = TaskInputs(
        [collated(plan, [inputs[row] for row in batch]) for batch in rows],
        [collated(plan, [each]) for found in golden for each in found.inputs],
    )
    return GroupInputs(groups, read, golden, rows, len(observed), batches)


def _bounded(
    plan: ExportPlan, groups: Sequence[ScoreGroup], reader: ScoreReader
) -> tuple[list[ScoreGroup], list[ScoreInputs]]:
    """Evenly spaced groups whose work is bounded, and their inputs."""
    read = [reader.read(group.query, group.documents, ScoreSettings()) for group in groups]
    tokens = sum(len(each.ids) for found in read for each in found.inputs)
    count = min(len(groups), max(1, int(len(groups) * COMPARED * calibration_tokens(plan) / tokens)))
    chosen = np.linspace(0, len(groups) - 1, count).astype(int).tolist()
    return [groups[row] for row in chosen], [read[row] for row in chosen]


def _scores(read: Sequence[ScoreInputs], outputs: Sequence[Float32]) -> Float32:
    """Scores of all documents, from the outputs of all inputs."""
    values = iter(outputs)
    return np.concatenate(
        [found.scores([found.kept(row, next(values)) for row in range(len(found.inputs))]) for found in read]
    )


def _batches(inputs: Sequence[ModelInput], rows: npt.NDArray[np.intp]) -> Iterable[npt.NDArray[np.intp]]:
    lengths = [len(inputs[row].ids) for row in rows]
    return (rows[batch] for batch in token_budget_batches(lengths, TOKEN_BUDGET))
