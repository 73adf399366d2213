"""Runs of one task's pairs: through the exact model, and through the graph of each weights format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.engine.golden_scores import before_activation
from embedpack.engine.pair_scores import PairReader
from embedpack.pack.graph_io import SCORE
from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_groups import ScoreGroup
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.calibration_run import ExactRun, open_heads
from embedpack_export.stages.graph_heads import score_heads
from embedpack_export.stages.score_inputs import ScoreInputs, score_inputs
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
    """Pairs of a task with the state of their runs."""

    inputs: ScoreInputs
    exact: ExactRun
    written: Mapping[WeightsFormat, WrittenRun]

    @classmethod
    def start(cls, plan: ExportPlan, scores: ScorePlan, task: str, formats: Sequence[WeightsFormat]) -> ScoreRun:
        """Place the pairs before the first stage."""
        inputs = score_inputs(plan, PairReader(plan.folder, scores.pairs, plan.processor.tokenizer))
        feeds = inputs.batches.feeds([])
        weights = Weights(plan.checkpoint, plan.tasks[task].adapter, plan.model.rules, plan.is_text_tensor)
        written = {name: WrittenRun(feeds) for name in formats}
        return cls(inputs, ExactRun(feeds, weights, inputs.observed), written)

    def offset(self, scores: ScorePlan, weights_format: WeightsFormat) -> Float32 | None:
        """Mean error of the last hidden states of a weights format, which its head adds back; None for fp32."""
        if weights_format == "fp32":
            return None
        exact, written = (
            self.inputs.batches.mean_vector(run.states(), scores.head.pooling)
            for run in (self.exact, self.written[weights_format])
        )
        return (exact - written).astype(np.float32)

    def scores(
        self, plan: ExportPlan, scores: ScorePlan, offsets: Mapping[WeightsFormat, Float32 | None], scratch: Path
    ) -> tuple[Scores, dict[WeightsFormat, Scores]]:
        """Exact scores, and those of each weights format with its offset added to the hidden states."""
        golden_reader = PairReader(plan.folder, before_activation(scores.pairs), plan.processor.tokenizer)
        with open_heads(plan.model.text, score_heads(scores.head), self.exact.weights, scratch) as session:

            def apply(run: ExactRun | WrittenRun, offset: Float32 | None) -> Scores:
                outputs = [
                    session.run([SCORE], feeds | {"hidden": values})[0]
                    for feeds, values in zip(run.feeds, run.states(offset), strict=True)
                ]
                count = len(self.inputs.rows)
                golden = golden_reader.scores(np.concatenate(outputs[count:]), self.inputs.golden)
                return Scores(self.inputs.scores(outputs[:count]), golden)

            return apply(self.exact, None), {name: apply(run, offsets[name]) for name, run in self.written.items()}
