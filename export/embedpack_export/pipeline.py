"""An export from end to end: plan, calibrate and write stage by stage, complete the pack, check its accuracy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.engine.golden import golden_key
from embedpack.errors import CheckpointError
from embedpack.pack.input_recipes import Prompt
from embedpack.pack.manifest import Manifest, Task
from embedpack.pack.strict import WeightsFormat
from embedpack.progress import Progress
from embedpack.vectors.arrays import Float32
from embedpack_export.accuracy_check.writing import report_accuracy
from embedpack_export.assembly.manifest import write_manifest_and_files
from embedpack_export.assembly.new_folder import check_output, new_pack
from embedpack_export.assembly.pack_builder import PackBuilder, VariantKind
from embedpack_export.graph.context import StagedModel
from embedpack_export.graph.lora_branches import AdapterBranches, check_switchable, write_adapter
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.choice import choose_reference
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.calibration_run import ExactRun, run_exact_stage
from embedpack_export.stages.cosine_records import rounding_cosines
from embedpack_export.stages.graph_heads import text_heads, vision_heads
from embedpack_export.stages.graph_writer import GraphWriter
from embedpack_export.stages.inputs import image_feeds
from embedpack_export.stages.output_codes import TaskCodes, fit_codes
from embedpack_export.stages.task_run import ImageVectors, RecordedVectors, TaskRun, TaskVectors
from embedpack_export.stages.written_run import FormatWriters, WrittenRun

logger = logging.getLogger("embedpack")


def export(settings: ExportSettings) -> Manifest:
    """Write a pack.

    Returns:
        The manifest of the pack.

    Raises:
        CheckpointError: the checkpoint or an adapter cannot be exported, or its own libraries read texts otherwise.
        InputError, CapacityError: the pack cannot be written.
        AccuracyError: a variant loses more than its budget.
        MissingExtraError: the packages of the reference in the settings are not installed.
    """
    check_output(settings.output, overwrite=settings.overwrite)
    plan = make_plan(settings)
    choice = choose_reference(plan, settings)
    with new_pack(settings.output, overwrite=settings.overwrite) as new:
        pack = PackBuilder(new.folder, new.scratch, settings.weights)
        images = _write_vision(plan, pack)
        switchable = "switchable" in settings.adapter_modes
        codes = _write_group(plan, _switchable(plan, images), None, pack) if switchable else None
        for task in plan.tasks if "merged" in settings.adapter_modes else ():
            _write_group(plan, _merged(plan, task, images), codes, pack)
        manifest = write_manifest_and_files(settings, plan, pack)
        reference = choice.with_recorded(plan, pack.recorded)
        manifest = report_accuracy(pack.folder, manifest, plan, reference, settings)
    megabytes = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    logger.info("%s: %s, %.1f MB", settings.output, ", ".join(manifest.variants), megabytes)
    return manifest


@dataclass(frozen=True)
class _GroupOutputs:
    """Outputs of a group's tasks, by task."""

    vectors: Mapping[str, TaskVectors]
    codes: Mapping[str, TaskCodes]


@dataclass(frozen=True)
class _Group:
    """Tasks that share graphs: a merged one alone, or all of them where adapters are switchable."""

    name: str  # first part of the names of the variants
    weights: Weights
    # Adapter branches of the graph of each weights format; empty: the adapter is merged.
    branches: Mapping[WeightsFormat, AdapterBranches]
    runs: Mapping[str, TaskRun]


def _write_vision(plan: ExportPlan, pack: PackBuilder) -> ImageVectors:
    """Write the vision graphs, which all tasks share."""
    if plan.model.vision is None:
        return ImageVectors([], {name: [] for name in pack.weights})
    vision, feeds = plan.model.vision, image_feeds(plan)
    weights = Weights(plan.checkpoint, None, plan.model.rules, vision.tensors.search)
    # The golden image is the last one.
    exact = ExactRun(weights, feeds, observed=len(feeds) - 1)
    writers = _writers(plan, vision.model, _Group("vision", weights, {}, {}), pack)
    written = {name: [WrittenRun(feeds)] for name in writers}
    _write_stages("vision", vision.model, [exact], FormatWriters(writers, written), pack)
    weights.check_all_used()
    for name, writer in writers.items():
        writer.finish(vision_heads, pack.folder / f"vision-{name}.onnx")
        pack.add_vision(name)
    return ImageVectors(exact.hidden, {name: runs[0].hidden for name, runs in written.items()})


def _merged(plan: ExportPlan, task: str, images: ImageVectors) -> _Group:
    """A task whose adapter is part of the weights."""
    run = TaskRun.start(plan, task, images, {})
    return _Group(task, run.exact.weights, {}, {task: run})


def _switchable(plan: ExportPlan, images: ImageVectors) -> _Group:
    """All tasks on one backbone that is calibrated with all adapters.

    Raises:
        CheckpointError: no task has an adapter, or one has an adapter that cannot be switched.
    """
    adapters, rules = [task.adapter for task in plan.tasks.values() if task.adapter is not None], plan.model.rules
    if not adapters:
        raise CheckpointError("switchable adapters were asked for, but the checkpoint has none; export it merged")
    backbone = Weights(plan.checkpoint, None, rules, plan.is_text_tensor)
    for adapter in adapters:
        check_switchable(adapter, backbone)
    modules = frozenset(rules.normal(module) for adapter in adapters for module in adapter.updates)
    branches = {name: AdapterBranches(modules) for name in images.written}
    runs = {task: TaskRun.start(plan, task, images, branches) for task in plan.tasks}
    return _Group("switchable", backbone, branches, runs)


def _write_group(
    plan: ExportPlan, group: _Group, codes: Mapping[str, TaskCodes] | None, pack: PackBuilder
) -> Mapping[str, TaskCodes]:
    """Write the graphs of a group with its tasks, variants, adapters and golden vectors.

    Returns the codes of each task: `codes`, which were fitted for another group, so that vectors of both can be
    compared, or else new ones. Tasks of a switchable graph share the scales of int8 codes; centers are stored with
    the adapters. A rotation would have to be stored there too, and is not worth its size.
    """
    writers = _writers(plan, plan.model.text, group, pack)
    written = {name: [run.written[name] for run in group.runs.values()] for name in writers}
    exact = [run.exact for run in group.runs.values()]
    _write_stages(group.name, plan.model.text, exact, FormatWriters(writers, written), pack)
    offsets = {name: _mean_error(name, group) for name in writers}
    vectors = {task: run.vectors(plan, offsets, pack.scratch) for task, run in group.runs.items()}
    if codes is None:
        exact_vectors = {task: of_task.exact for task, of_task in vectors.items()}
        codes = fit_codes(plan, exact_vectors, rotate=not group.branches)
    for name, writer in writers.items():
        heads = text_heads(plan, _codes_of_graph(plan, group, codes), offsets[name])
        writer.finish(heads, pack.folder / f"{group.name}-{name}.onnx")
    for task, run in group.runs.items():
        run.exact.weights.check_all_used()
        _check_branches(plan, task, group)
        pack.golden.cases[task] = run.golden
        pack.recorded[task] = RecordedVectors(run.inputs, vectors[task].exact)
        _add_task(plan, task, run.exact.weights, codes[task], pack)
    for name in writers:
        _add_variant(plan, group, name, _GroupOutputs(vectors, codes), pack)
    return codes


def _codes_of_graph(plan: ExportPlan, group: _Group, codes: Mapping[str, TaskCodes]) -> TaskCodes:
    """Codes that are part of a graph: those of its task; of a switchable one those that hold without an adapter."""
    first = codes[next(iter(group.runs))]
    if not group.branches:
        return first
    base = next((task for task in group.runs if plan.tasks[task].adapter is None), None)
    return first.scales_alone if base is None else codes[base].without_adapter


def _check_branches(plan: ExportPlan, task: str, group: _Group) -> None:
    """Refuse a task whose adapter is only in part an input of the written graphs."""
    adapter = plan.tasks[task].adapter
    if adapter is not None:
        for branches in group.branches.values():
            branches.check_complete(adapter, plan.model.rules)


def _writers(
    plan: ExportPlan, model: StagedModel, group: _Group, pack: PackBuilder
) -> dict[WeightsFormat, GraphWriter]:
    """A writer of a group's graph for each weights format."""
    return {
        kind: GraphWriter(
            f"{group.name}-{kind}", pack.store, model, group.weights, plan.formats[kind], group.branches.get(kind)
        )
        for kind in pack.weights
    }


def _write_stages(
    name: str, model: StagedModel, exact: Sequence[ExactRun], writing: FormatWriters, pack: PackBuilder
) -> None:
    """Run each stage in float32, write it in every format with the statistics of that run, and run what was written."""
    with Progress(f"writing {name}", len(model.stages)) as progress:
        for index in range(len(model.stages)):
            writing.append(index, run_exact_stage(model, index, exact, pack.scratch))
            progress.advance(1)


def _mean_error(weights_format: WeightsFormat, group: _Group) -> Float32 | None:
    """Mean error of a variant's last hidden states, which the heads add back; None for fp32.

    A large part of the rounding error of a decoder's vectors is the same for all of them.
    """
    if weights_format == "fp32":
        return None
    errors = [run.mean_error(weights_format) for run in group.runs.values()]
    return np.mean(errors, axis=0).astype(np.float32)


def _add_task(plan: ExportPlan, task: str, weights: Weights, codes: TaskCodes, pack: PackBuilder) -> None:
    """Write the codebooks of a task's space, and add both to the pack."""
    file = f"calibration/{task}.safetensors"
    codes.write(pack.folder / file)
    pack.spaces[task] = codes.space(file)
    pack.tasks[task] = Task(
        space=task,
        prompts={name: Prompt(prefix=prefix) for name, prefix in plan.tasks[task].prompts.items()},
        default_prompt_name=plan.tasks[task].default_prompt_name,
        adapter=weights.adapter_record(),
    )


def _add_variant(
    plan: ExportPlan, group: _Group, weights_format: WeightsFormat, outputs: _GroupOutputs, pack: PackBuilder
) -> None:
    """Add a variant with its adapter files and golden vectors to the pack."""
    name, switchable = f"{group.name}-{weights_format}", weights_format in group.branches
    written = {task: outputs.vectors[task].written[weights_format] for task in group.runs}
    for task, vectors in written.items():
        pack.golden.vectors[golden_key(name, task) if switchable else name] = vectors.golden_lists()
    measured = rounding_cosines([outputs.vectors[task].exact for task in group.runs], list(written.values()))
    files = _write_adapters(plan, group, weights_format, outputs.codes, pack.folder)
    merged = None if switchable else next(iter(group.runs))
    pack.add_variant(name, VariantKind(merged, weights_format, files), measured)


def _write_adapters(
    plan: ExportPlan, group: _Group, weights_format: WeightsFormat, codes: Mapping[str, TaskCodes], folder: Path
) -> dict[str, str]:
    """Write the adapter of each task of a switchable variant; its file by task, nothing for a merged variant."""
    branches, files = group.branches.get(weights_format), {}
    for task in group.runs:
        adapter = plan.tasks[task].adapter
        if branches is not None and adapter is not None:
            files[task] = f"adapters/{task}.{weights_format}.onnx_adapter"
            tensors = branches.tensors(adapter, plan.model.rules) | codes[task].center_inputs
            write_adapter(tensors, folder / files[task])
    return files
