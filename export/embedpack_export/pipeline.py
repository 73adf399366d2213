"""The story of an export: plan, calibrate and write stage by stage, measure; seal the pack at the end."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedpack.golden import golden_cases
from embedpack.pack import Manifest, Task, WeightsFormat
from embedpack.progress import Progress
from embedpack_export.build import GraphWriter, Scales, text_heads, vision_heads
from embedpack_export.calibration import int8_scale
from embedpack_export.calibration_inputs import Batch, image_feeds, prepared_images, real_tokens, text_batches
from embedpack_export.draft import Draft
from embedpack_export.graph.formats import FORMATS
from embedpack_export.graph.heads import SENTENCE, TOKENS
from embedpack_export.graph.target import StagedModel
from embedpack_export.lora import Float32
from embedpack_export.measure import Reference, measure_variant
from embedpack_export.observe import Flow, run_heads, run_stage
from embedpack_export.pack_writer import check_output, new_pack
from embedpack_export.plan import ExportPlan, make_plan
from embedpack_export.seal import seal
from embedpack_export.settings import ExportSettings
from embedpack_export.weights import Weights

logger = logging.getLogger("embedpack")


def export(settings: ExportSettings) -> Manifest:
    """Write a pack.

    Returns:
        Its manifest.

    Raises:
        CheckpointError: the checkpoint or an adapter cannot be exported.
        InputError, CapacityError: the pack cannot be written.
    """
    check_output(settings.output, overwrite=settings.overwrite)
    plan = make_plan(settings)
    with (
        new_pack(settings.output, overwrite=settings.overwrite) as folder,
        tempfile.TemporaryDirectory(prefix=".calibration.", dir=settings.output.parent) as scratch,
    ):
        draft = Draft(folder, Path(scratch), settings.weights)
        embeds = _write_vision(plan, draft)
        for task in plan.tasks:
            _write_task(plan, task, embeds, draft)
        manifest = seal(settings, plan, draft)
    logger.info("%s: %d variants, %.1f MB", settings.output, len(manifest.variants), _megabytes(manifest))
    return manifest


def _write_vision(plan: ExportPlan, draft: Draft) -> list[Float32]:
    """Write the vision graphs, which all tasks share; returns the exact vectors of the calibration images."""
    if plan.model.vision is None:
        return []
    weights = Weights(plan.checkpoint, None, plan.model.rules, plan.model.vision.tensors.search)
    flow = Flow(weights, image_feeds(plan, prepared_images(plan)))
    writers = {
        name: GraphWriter(f"vision-{name}", draft.store, plan.model.vision.model, weights, FORMATS[name])
        for name in draft.weights
    }
    _advance("vision", plan.model.vision.model, [flow], writers, draft)
    weights.check_all_used()
    for name, writer in writers.items():
        writer.finish(vision_heads, draft.folder / f"vision-{name}.onnx")
        draft.add_vision(name)
    return flow.hidden


def _write_task(plan: ExportPlan, task: str, embeds: Sequence[Float32], draft: Draft) -> None:
    """Write all merged variants of a task, calibrated and measured against the same weights in float32."""
    weights = Weights(plan.checkpoint, plan.tasks[task].adapter, plan.model.rules, plan.is_text_tensor)
    batches = text_batches(plan, plan.tasks[task], prepared_images(plan), embeds)
    flow = Flow(weights, [batch.feeds for batch in batches])
    writers = {
        name: GraphWriter(f"{task}-{name}", draft.store, plan.model.text, weights, FORMATS[name])
        for name in draft.weights
    }
    _advance(task, plan.model.text, [flow], writers, draft)
    reference = exact_vectors(plan, flow, batches, draft)
    scales = int8_scales(reference)
    for writer_name, writer in writers.items():
        writer.finish(text_heads(plan, scales), draft.folder / f"{task}-{writer_name}.onnx")
    weights.check_all_used()
    draft.tasks[task] = Task(
        prompts=dict(plan.tasks[task].prompts),
        default_prompt_name=plan.tasks[task].default_prompt_name,
        int8_scale=scales.sentence,
        token_int8_scale=scales.tokens,
        adapter=weights.adapter_record(),
    )
    draft.golden.cases[task] = golden_cases(plan.tasks[task].prompts.values(), images=plan.model.vision is not None)
    for name in writers:
        _finish_variant(plan, task, name, reference, draft)


def _finish_variant(
    plan: ExportPlan, task: str, weights_format: WeightsFormat, reference: Reference, draft: Draft
) -> None:
    name = f"{task}-{weights_format}"
    graphs = draft.graphs(name, weights_format)
    measured = measure_variant(plan, graphs, reference)
    draft.add_variant(name, task, weights_format, graphs.text, measured)
    draft.golden.vectors[name] = graphs.golden(plan, draft.golden.cases[task])
    logger.info("%s: cosine to fp32 %.5f, lowest %.5f", name, measured.cosine_mean, measured.cosine_min)


def _advance(
    label: str, model: StagedModel, flows: Sequence[Flow], writers: dict[WeightsFormat, GraphWriter], draft: Draft
) -> None:
    """Run the stages in float32 and write each with what was seen of it, before the next one is read."""
    with Progress(f"writing {label}", len(model.stages)) as progress:
        for index in range(len(model.stages)):
            statistics = run_stage(model, index, flows, draft.scratch)
            for writer in writers.values():
                writer.append(index, statistics)
            progress.advance(1)


def exact_vectors(plan: ExportPlan, flow: Flow, batches: Sequence[Batch], draft: Draft) -> Reference:
    """The vectors of the calibration inputs in float32."""
    outputs = [SENTENCE] if plan.model.tokens is None else [SENTENCE, TOKENS]
    found = run_heads(plan.model.text, text_heads(plan, Scales(1.0, 1.0)), flow, outputs, draft.scratch)
    tokens = [real_tokens(batch, item[1]) for batch, item in zip(batches, found, strict=True) if len(item) > 1]
    return Reference(batches, np.concatenate([item[0] for item in found]), np.concatenate(tokens) if tokens else None)


def int8_scales(reference: Reference) -> Scales:
    """Steps of the int8 codes that fit the vectors."""
    return Scales(int8_scale(reference.vectors), None if reference.tokens is None else int8_scale(reference.tokens))


def _megabytes(manifest: Manifest) -> float:
    return sum(entry.bytes for entry in manifest.files.values()) / 1e6
