"""The story of an export: plan, calibrate and write stage by stage, measure; seal the pack at the end."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.golden import golden_cases, golden_key
from embedpack.pack import Manifest, Task, WeightsFormat
from embedpack.progress import Progress
from embedpack_export.build import GraphWriter, LinearWriting, Scales, text_heads, vision_heads
from embedpack_export.calibration_inputs import Batch, image_feeds, prepared_images, real_tokens, text_batches
from embedpack_export.draft import Draft, VariantKind
from embedpack_export.graph.branches import AdapterBranches
from embedpack_export.graph.formats import FORMATS
from embedpack_export.graph.heads import SENTENCE, TOKENS
from embedpack_export.graph.target import StagedModel
from embedpack_export.lora import Float32
from embedpack_export.measure import Reference, accuracy, cosines, int8_scales
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
        scales = _write_switchable(plan, embeds, draft) if "switchable" in settings.adapter_modes else None
        for task in plan.tasks if "merged" in settings.adapter_modes else ():
            _write_task(plan, task, embeds, scales, draft)
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
        name: GraphWriter(f"vision-{name}", draft.store, plan.model.vision.model, weights, LinearWriting(FORMATS[name]))
        for name in draft.weights
    }
    _advance("vision", plan.model.vision.model, [flow], writers, draft)
    weights.check_all_used()
    for name, writer in writers.items():
        writer.finish(vision_heads, draft.folder / f"vision-{name}.onnx")
        draft.add_vision(name)
    return flow.hidden


def _write_task(plan: ExportPlan, task: str, embeds: Sequence[Float32], scales: Scales | None, draft: Draft) -> None:
    """Write all merged variants of a task, calibrated and measured against the same weights in float32."""
    weights, batches = _task_weights(plan, task), text_batches(plan, plan.tasks[task], prepared_images(plan), embeds)
    flow = Flow(weights, [batch.feeds for batch in batches])
    writers = _writers(plan, task, weights, draft)
    _advance(task, plan.model.text, [flow], writers, draft)
    reference = _exact_vectors(plan, flow, batches, draft)
    scales = scales or int8_scales([reference])
    _finish(plan, task, writers, scales, draft)
    weights.check_all_used()
    _add_task(plan, task, weights, scales, draft)
    for weights_format in writers:
        name = f"{task}-{weights_format}"
        graphs = draft.graphs(name, weights_format)
        draft.add_variant(
            name, VariantKind(task, weights_format, {}), graphs, accuracy([cosines(plan, graphs, reference)])
        )
        draft.golden.vectors[name] = graphs.golden(plan, draft.golden.cases[task])


def _write_switchable(plan: ExportPlan, embeds: Sequence[Float32], draft: Draft) -> Scales:
    """Write the switchable variants: one backbone, calibrated with all adapters, and a file for each of these.

    Returns:
        The steps of the int8 codes, which all tasks share.
    """
    adapters = {task: item.adapter for task, item in plan.tasks.items() if item.adapter is not None}
    if len(adapters) < len(plan.tasks):
        raise CheckpointError("switchable adapters were asked for, but the checkpoint has none; export it merged")
    modules = {plan.model.rules.normal(module) for adapter in adapters.values() for module in adapter.updates}
    branches = {weights_format: AdapterBranches(frozenset(modules)) for weights_format in draft.weights}
    backbone = Weights(plan.checkpoint, None, plan.model.rules, plan.is_text_tensor)
    writers = _writers(plan, "switchable", backbone, draft, branches)
    batches = {task: text_batches(plan, plan.tasks[task], prepared_images(plan), embeds) for task in adapters}
    flows = {task: Flow(_task_weights(plan, task), [item.feeds for item in batches[task]]) for task in adapters}
    _advance("switchable", plan.model.text, list(flows.values()), writers, draft)
    references = {task: _exact_vectors(plan, flow, batches[task], draft) for task, flow in flows.items()}
    scales = int8_scales(list(references.values()))
    _finish(plan, "switchable", writers, scales, draft)
    for task, flow in flows.items():
        flow.weights.check_all_used()
        _add_task(plan, task, flow.weights, scales, draft)
    for weights_format in writers:
        name, files = f"switchable-{weights_format}", {}
        for task, adapter in adapters.items():
            files[task] = f"adapters/{task}.{weights_format}.onnx_adapter"
            branches[weights_format].write(adapter, plan.model.rules, draft.folder / files[task])
        graphs = draft.graphs(name, weights_format, files)
        found = [cosines(plan, graphs, reference, task) for task, reference in references.items()]
        draft.add_variant(name, VariantKind(None, weights_format, files), graphs, accuracy(found))
        for task in adapters:
            draft.golden.vectors[golden_key(name, task)] = graphs.golden(plan, draft.golden.cases[task], task)
    return scales


def _task_weights(plan: ExportPlan, task: str) -> Weights:
    return Weights(plan.checkpoint, plan.tasks[task].adapter, plan.model.rules, plan.is_text_tensor)


def _writers(
    plan: ExportPlan,
    label: str,
    weights: Weights,
    draft: Draft,
    branches: Mapping[WeightsFormat, AdapterBranches] = MappingProxyType({}),
) -> dict[WeightsFormat, GraphWriter]:
    return {
        name: GraphWriter(
            f"{label}-{name}", draft.store, plan.model.text, weights, LinearWriting(FORMATS[name], branches.get(name))
        )
        for name in draft.weights
    }


def _finish(
    plan: ExportPlan, label: str, writers: Mapping[WeightsFormat, GraphWriter], scales: Scales, draft: Draft
) -> None:
    for name, writer in writers.items():
        writer.finish(text_heads(plan, scales), draft.folder / f"{label}-{name}.onnx")


def _add_task(plan: ExportPlan, task: str, weights: Weights, scales: Scales, draft: Draft) -> None:
    planned = plan.tasks[task]
    draft.tasks[task] = Task(
        prompts=dict(planned.prompts),
        default_prompt_name=planned.default_prompt_name,
        int8_scale=scales.sentence,
        token_int8_scale=scales.tokens,
        adapter=weights.adapter_record(),
    )
    draft.golden.cases[task] = golden_cases(planned.prompts.values(), images=plan.model.vision is not None)


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


def _exact_vectors(plan: ExportPlan, flow: Flow, batches: Sequence[Batch], draft: Draft) -> Reference:
    """The vectors of the calibration inputs in float32."""
    outputs = [SENTENCE] if plan.model.tokens is None else [SENTENCE, TOKENS]
    found = run_heads(plan.model.text, text_heads(plan, Scales(1.0, 1.0)), flow, outputs, draft.scratch)
    tokens = [real_tokens(batch, item[1]) for batch, item in zip(batches, found, strict=True) if len(item) > 1]
    return Reference(batches, np.concatenate([item[0] for item in found]), np.concatenate(tokens) if tokens else None)


def _megabytes(manifest: Manifest) -> float:
    return sum(entry.bytes for entry in manifest.files.values()) / 1e6
