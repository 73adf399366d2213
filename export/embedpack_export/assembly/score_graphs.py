"""Graphs of a pack that gives scores: one for each task and weights format."""

from __future__ import annotations

import msgspec

from embedpack.engine.golden_scores import golden_pairs
from embedpack.pack.accuracy_records import Accuracy
from embedpack.pack.manifest import Task
from embedpack.vectors.arrays import Float32
from embedpack_export.assembly.pack_builder import PackBuilder, VariantKind
from embedpack_export.assembly.stage_writing import GraphSource, write_stages
from embedpack_export.graph.formats.float16_range import headroom
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.stages.cosine_records import REFERENCE
from embedpack_export.stages.graph_heads import scoring_heads
from embedpack_export.stages.score_inputs import GroupInputs
from embedpack_export.stages.score_records import recorded_agreement
from embedpack_export.stages.score_run import RecordedScores, ScoreRun
from embedpack_export.stages.task_run import ImageVectors


def write_score_graphs(plan: ExportPlan, scores: ScorePlan, images: ImageVectors, pack: PackBuilder) -> None:
    """Write the graphs of all tasks, with their variants and golden scores; CheckpointError as `write_text_graphs`."""
    pack.golden_scores.pairs.extend(golden_pairs(images=plan.model.vision is not None))
    for task in plan.tasks:
        run = ScoreRun.start(plan, scores, task, images)
        source = GraphSource(task, plan.model.text, run.exact.weights, plan.formats)
        written = {name: [each] for name, each in run.written.items()}
        writers = write_stages(source, [run.exact], written, pack)
        offsets = {name: run.offset(scores, name) for name in writers}
        exact, by_format = run.scores(plan, scores, offsets, pack.scratch)
        for name, writer in writers.items():
            writer.finish(scoring_heads(scores.head, offsets[name]), pack.folder / f"{task}-{name}.onnx")
        run.exact.weights.check_all_used()
        adapter = run.exact.weights.adapter_record()
        pack.tasks[task] = Task(space=None, prompts={}, default_prompt_name=None, adapter=adapter)
        pack.recorded_scores[task] = RecordedScores(run.inputs.groups, exact.documents)
        for name, found in by_format.items():
            variant = f"{task}-{name}"
            pack.golden_scores.scores[variant] = found.golden_list()
            measured = _accuracy(run.inputs, exact.documents, found.documents)
            measured = msgspec.structs.replace(measured, headroom=headroom(writers[name].context))
            pack.add_variant(variant, VariantKind(task, name, plan.formats[name].device, {}), measured)


def _accuracy(inputs: GroupInputs, exact: Float32, found: Float32) -> Accuracy:
    measured = recorded_agreement(inputs.groups, exact, found)
    return Accuracy(reference=REFERENCE, inputs=len(exact), single=None, multi=None, score=measured)
