"""Runs of one task's pairs or lists: through the exact model, and through the graph of each weights format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.pack.graph_io import MARK_INDEX, MARK_VECTORS, SCORE
from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.families.heads import MarkHead
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_groups import ScoreGroup
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.calibration_run import ExactRun, open_heads
from embedpack_export.stages.graph_heads import scoring_heads
from embedpack_export.stages.score_inputs import GroupInputs, group_inputs
from embedpack_export.stages.staged_run import Feeds
from embedpack_export.stages.task_run import ImageVectors
from embedpack_export.stages.written_run import WrittenRun


@dataclass(frozen=True)
class Scores:
    """Scores of a task's documents, float32 [documents of all groups], and of golden pairs before the activation."""

    documents: Float32
    golden: Float32

    def golden_list(self) -> list[float]:
        """Golden scores as in the pack, rounded to six digits."""
        return [round(float(score), 6) for score in self.golden]


@dataclass(frozen=True)
class RecordedScores:
    """Groups of a task with their exact scores, float32 [documents of all groups]."""

    groups: Sequence[ScoreGroup]
    scores: Float32


@dataclass(frozen=True)
class ScoreRun:
    """Groups of a task with the state of their runs."""

    inputs: GroupInputs
    exact: ExactRun
    written: Mapping[WeightsFormat, WrittenRun]

    @classmethod
    def start(cls, plan: ExportPlan, scores: ScorePlan, task: str, images: ImageVectors) -> ScoreRun:
        """Place the groups before the first stage; `images` has the weights formats that are written."""
        inputs = group_inputs(plan, scores)
        weights = Weights(plan.checkpoint, plan.tasks[task].adapter, plan.model.rules, plan.is_text_tensor)
        written = {name: WrittenRun(_feeds(inputs, vectors)) for name, vectors in images.written.items()}
        return cls(inputs, ExactRun(_feeds(inputs, images.exact), weights, inputs.observed), written)

    def offset(self, scores: ScorePlan, weights_format: WeightsFormat) -> Float32 | None:
        """Mean error of the last hidden states of a weights format, which its head adds back; None for fp32."""
        if weights_format == "fp32":
            return None
        pooled = "marks" if isinstance(scores.head, MarkHead) else scores.head.pooling
        exact, written = (
            self.inputs.batches.mean_vector(run.states(), pooled) for run in (self.exact, self.written[weights_format])
        )
        return (exact - written).astype(np.float32)

    def scores(
        self, plan: ExportPlan, scores: ScorePlan, offsets: Mapping[WeightsFormat, Float32 | None], scratch: Path
    ) -> tuple[Scores, dict[WeightsFormat, Scores]]:
        """Exact scores, and those of each weights format with its offset added to the hidden states."""
        output = MARK_VECTORS if isinstance(scores.head, MarkHead) else SCORE
        with open_heads(plan.model.text, scoring_heads(scores.head), self.exact.weights, scratch) as session:

            def apply(run: ExactRun | WrittenRun, offset: Float32 | None) -> Scores:
                outputs = []
                marks = self.inputs.marks
                for feeds, places, values in zip(run.feeds, marks, run.states(offset), strict=True):
                    (found,) = session.run([output], feeds | places | {"hidden": values})
                    outputs.append(found.reshape(len(values), -1, found.shape[1]) if found.ndim > 1 else found)
                return Scores(self.inputs.scores(outputs), self.inputs.golden_scores(outputs))

            return apply(self.exact, None), {name: apply(run, offsets[name]) for name, run in self.written.items()}


def _feeds(inputs: GroupInputs, images: Sequence[Float32]) -> list[Feeds]:
    """Inputs of the stages, which have no marks."""
    return [
        {name: values for name, values in each.items() if name != MARK_INDEX} for each in inputs.batches.feeds(images)
    ]
