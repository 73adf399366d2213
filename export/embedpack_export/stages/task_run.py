"""Runs of one task's calibration inputs: through the exact model, and through the graph of each weights format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.engine.golden import GoldenCase, golden_cases, golden_of_multi
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from embedpack.pack.manifest import Pooling
from embedpack.pack.strict import WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64
from embedpack_export.graph.lora_branches import AdapterBranches
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.calibration_run import ExactRun, open_heads
from embedpack_export.stages.cosine_records import Vectors
from embedpack_export.stages.graph_heads import text_heads
from embedpack_export.stages.inputs import CollatedBatch, TaskInputs, text_inputs
from embedpack_export.stages.written_run import AdapterFeeds, WrittenRun


@dataclass(frozen=True)
class ImageVectors:
    """Outputs of the vision tower for the images of the calibration, and for the golden one behind them.

    They are vectors of the tokens of each image, or finished single vectors, float32 [1, dimensions].
    """

    exact: Sequence[Float32]  # vectors of each image in float32
    written: Mapping[WeightsFormat, Sequence[Float32]]  # the same from the vision graph of each weights format


@dataclass(frozen=True)
class RecordedVectors:
    """Inputs of a task with their exact vectors."""

    inputs: TaskInputs
    vectors: Vectors


@dataclass(frozen=True)
class TaskVectors:
    """Vectors of a task's inputs: exact ones, and those of each weights format."""

    exact: Vectors
    written: Mapping[WeightsFormat, Vectors]


@dataclass(frozen=True)
class TaskRun:
    """Inputs of a task with the state of their runs."""

    golden: list[GoldenCase]  # golden cases among the inputs
    inputs: TaskInputs  # calibration inputs and golden inputs
    exact: ExactRun  # run through the model in float32
    written: Mapping[WeightsFormat, WrittenRun]  # run through the graph of each weights format
    images: ImageVectors
    corrected: Pooling  # pooling whose tokens `mean_error` is about; "mean" if all tokens have vectors of their own

    @classmethod
    def start(
        cls, plan: ExportPlan, task: str, images: ImageVectors, branches: Mapping[WeightsFormat, AdapterBranches]
    ) -> TaskRun:
        """Place the inputs of a task before the first stage; with `branches` the adapter is an input of the graphs."""
        task_plan = plan.tasks[task]
        golden = golden_cases(task_plan.prompts.values(), images=plan.model.vision is not None)
        inputs = text_inputs(plan, task_plan, golden)
        weights = Weights(plan.checkpoint, task_plan.adapter, plan.model.rules, plan.is_text_tensor)
        written = {}
        for name, vectors in images.written.items():
            adapter = None
            if task_plan.adapter is not None and name in branches:
                adapter = AdapterFeeds(branches[name], task_plan.adapter, plan.model.rules)
            written[name] = WrittenRun(inputs.feeds(vectors), adapter, lengths=inputs.lengths)
        exact = ExactRun(inputs.feeds(images.exact), weights, len(inputs.calibration), lengths=inputs.lengths)
        corrected = "mean" if plan.pooling is None or plan.tokens is not None else plan.pooling
        return cls(golden, inputs, exact, written, images, corrected)

    def mean_error(self, weights_format: WeightsFormat) -> Float64:
        """Mean of the exact last hidden states minus that of a weights format, float64 [dimensions]."""
        written = self.inputs.mean_vector(self.written[weights_format].states(), self.corrected)
        return self.inputs.mean_vector(self.exact.states(), self.corrected) - written

    def vectors(self, plan: ExportPlan, offsets: Mapping[WeightsFormat, Float32 | None], scratch: Path) -> TaskVectors:
        """Compute the vectors of all inputs; `offsets[format]`, [dimensions], is first added to its hidden states."""
        outputs = [SENTENCE_EMBEDDING] * (plan.single is not None) + [TOKEN_EMBEDDINGS] * (plan.tokens is not None)
        with open_heads(plan.model.text, text_heads(plan, None), self.exact.weights, scratch) as session:

            def apply(run: ExactRun | WrittenRun, offset: Float32 | None, images: Sequence[Float32]) -> Vectors:
                batches = zip(run.feeds, run.states(offset), strict=True)
                results = [session.run(outputs, feeds | {"hidden": values}) for feeds, values in batches]
                vectors = self._vectors([dict(zip(outputs, values, strict=True)) for values in results])
                return vectors.with_images(images) if self.inputs.images else vectors

            written = {name: apply(run, offsets[name], self.images.written[name]) for name, run in self.written.items()}
            return TaskVectors(apply(self.exact, None, self.images.exact), written)

    def release(self) -> None:
        """Remove the hidden states, once the vectors are computed."""
        for run in (self.exact, *self.written.values()):
            run.replace_states(None)

    def _vectors(self, outputs: Sequence[Mapping[str, Float32]]) -> Vectors:
        """Vectors from the outputs of each batch, by name."""
        calibration, golden = outputs[: len(self.inputs.calibration)], outputs[len(self.inputs.calibration) :]
        single, multi = (name in calibration[0] for name in (SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS))
        tokens = [batch[TOKEN_EMBEDDINGS] for batch in calibration if multi]
        return Vectors(
            inputs=sum(len(batch.items) for batch in self.inputs.calibration),
            single=np.concatenate([batch[SENTENCE_EMBEDDING] for batch in calibration]) if single else None,
            tokens=self.inputs.multi_vectors(tokens) if multi else None,
            golden=[self._golden(*each) for each in zip(self.inputs.golden, golden, strict=True)],
        )

    def _golden(self, batch: CollatedBatch, outputs: Mapping[str, Float32]) -> Float32:
        if SENTENCE_EMBEDDING in outputs:
            return outputs[SENTENCE_EMBEDDING][0]
        return golden_of_multi(batch.items[0].of_multi_vector(outputs[TOKEN_EMBEDDINGS][0]))
