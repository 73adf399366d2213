"""Text graphs of a pack: the stages of each, then heads with the codes of their tasks' spaces.

The codes of a space are fitted to the exact vectors of all of its tasks, so the stages of all of its graphs are written
before the heads of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec
import numpy as np

from embedpack.engine.golden import golden_key
from embedpack.errors import CheckpointError
from embedpack.inputs.prompt_rules import as_prompt
from embedpack.pack.manifest import Task
from embedpack.pack.strict import AdapterMode, WeightsFormat
from embedpack.vectors.arrays import Float32
from embedpack_export.assembly.pack_builder import PackBuilder, VariantKind
from embedpack_export.assembly.stage_writing import GraphSource, write_stages
from embedpack_export.graph.formats.float16_range import headroom
from embedpack_export.graph.lora_branches import AdapterBranches, adapter_changes, check_switchable, write_adapter
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.cosine_records import Vectors, rounding_cosines
from embedpack_export.stages.graph_heads import text_heads
from embedpack_export.stages.graph_writer import GraphWriter
from embedpack_export.stages.output_codes import SpaceCodes, fit_codes
from embedpack_export.stages.task_run import ImageVectors, RecordedVectors, TaskRun, TaskVectors


def write_text_graphs(
    plan: ExportPlan, modes: Sequence[AdapterMode], images: ImageVectors, pack: PackBuilder
) -> Mapping[str, SpaceCodes]:
    """Write the graphs of all tasks with their codes, adapters, variants and golden vectors; the codes of each space.

    Merged graphs have the codes of the switchable ones if there are any, so that vectors of both can be compared. Tasks
    of a switchable graph share the scales of int8 codes; centers are stored with the adapters. A rotation would have to
    be stored there too, and is not worth its size.

    Raises:
        CheckpointError: a tensor or an adapter cannot be used.
    """
    codes: dict[str, SpaceCodes] = {}
    if "switchable" in modes:
        group = _with_stages(plan, _switchable(plan, images), pack)
        codes = fit_codes(plan, group.exact, rotate=False)
        _complete(plan, group, codes, pack)
    for tasks in plan.tasks_by_space.values() if "merged" in modes else ():
        groups = [_with_stages(plan, _merged(plan, task, images), pack) for task in tasks]
        exact = {task: vectors for group in groups for task, vectors in group.exact.items()}
        shared = "switchable" in modes
        codes_of_space = codes if shared else fit_codes(plan, exact, rotate=True)
        for group in groups:
            _complete(plan, group, codes_of_space, pack)
        codes |= codes_of_space
    return codes


@dataclass(frozen=True)
class _Group:
    """Tasks that share graphs: a merged one alone, or all of them where adapters are switchable."""

    source: GraphSource
    runs: Mapping[str, TaskRun]  # by task


@dataclass(frozen=True)
class _WrittenGroup(_Group):
    """A group whose graphs have all stages, and no heads yet."""

    writers: Mapping[WeightsFormat, GraphWriter]
    offsets: Mapping[WeightsFormat, Float32 | None]  # mean errors of the last hidden states, see `_mean_error`
    vectors: Mapping[str, TaskVectors]  # by task

    @property
    def exact(self) -> dict[str, Vectors]:
        """Exact vectors of each task."""
        return {task: vectors.exact for task, vectors in self.vectors.items()}


def _merged(plan: ExportPlan, task: str, images: ImageVectors) -> _Group:
    """A task whose adapter is part of the weights."""
    run = TaskRun.start(plan, task, images, {})
    return _Group(GraphSource(task, plan.model.text, run.exact.weights, plan.formats), {task: run})


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
    modules = frozenset(chain.from_iterable(adapter_changes(adapter, rules) for adapter in adapters))
    branches = {name: AdapterBranches(modules) for name in images.written}
    runs = {task: TaskRun.start(plan, task, images, branches) for task in plan.tasks}
    return _Group(GraphSource("switchable", plan.model.text, backbone, plan.formats, branches), runs)


def _with_stages(plan: ExportPlan, group: _Group, pack: PackBuilder) -> _WrittenGroup:
    """Write all stages of a group's graphs, and compute the vectors of its tasks."""
    exact = [run.exact for run in group.runs.values()]
    written = {name: [run.written[name] for run in group.runs.values()] for name in pack.weights}
    writers = write_stages(group.source, exact, written, pack)
    offsets = {name: _mean_error(name, group) for name in writers}
    vectors = {task: run.vectors(plan, offsets, pack.scratch) for task, run in group.runs.items()}
    for run in group.runs.values():
        run.release()
    return _WrittenGroup(group.source, group.runs, writers, offsets, vectors)


def _mean_error(weights_format: WeightsFormat, group: _Group) -> Float32 | None:
    """Mean error of a variant's last hidden states, which the heads add back; None for fp32.

    A large part of the rounding error of a decoder's vectors is the same for all of them.
    """
    if weights_format == "fp32":
        return None
    errors = [run.mean_error(weights_format) for run in group.runs.values()]
    return np.mean(errors, axis=0).astype(np.float32)


def _complete(plan: ExportPlan, group: _WrittenGroup, codes: Mapping[str, SpaceCodes], pack: PackBuilder) -> None:
    """Write the heads of a group's graphs, and add its spaces, tasks and variants to the pack."""
    for name, writer in group.writers.items():
        heads = text_heads(plan, _codes_of_graph(plan, group, codes), group.offsets[name])
        writer.finish(heads, pack.folder / f"{group.source.name}-{name}.onnx")
    for task, run in group.runs.items():
        run.exact.weights.check_all_used()
        _check_branches(plan, task, group)
        pack.golden.cases[task] = run.golden
        pack.recorded[task] = RecordedVectors(run.inputs, group.vectors[task].exact)
        _add_task(plan, task, run.exact.weights, codes, pack)
    for name in group.writers:
        _add_variant(plan, group, name, codes, pack)


def _codes_of_graph(plan: ExportPlan, group: _Group, codes: Mapping[str, SpaceCodes]) -> SpaceCodes:
    """Codes that are part of a graph: those of its task; of a switchable one those that hold without an adapter."""
    first = codes[plan.tasks[next(iter(group.runs))].space]
    if not group.source.branches:
        return first
    base = next((plan.tasks[task] for task in group.runs if plan.tasks[task].adapter is None), None)
    return first.scales_alone if base is None else codes[base.space].without_adapter


def _check_branches(plan: ExportPlan, task: str, group: _Group) -> None:
    """Refuse a task whose adapter is only in part an input of the written graphs."""
    adapter = plan.tasks[task].adapter
    if adapter is not None:
        for branches in group.source.branches.values():
            branches.check_complete(adapter, plan.model.rules)


def _add_task(
    plan: ExportPlan, task: str, weights: Weights, codes: Mapping[str, SpaceCodes], pack: PackBuilder
) -> None:
    """Add a task and its space to the pack."""
    planned = plan.tasks[task]
    if planned.space not in pack.spaces:
        pack.spaces[planned.space] = codes[planned.space].write(pack.folder, planned.space)
    pack.tasks[task] = Task(
        space=planned.space,
        prompts={name: as_prompt(prompt) for name, prompt in planned.prompts.items()},
        default_prompt_name=planned.default_prompt_name,
        adapter=weights.adapter_record(),
    )


def _add_variant(
    plan: ExportPlan,
    group: _WrittenGroup,
    weights_format: WeightsFormat,
    codes: Mapping[str, SpaceCodes],
    pack: PackBuilder,
) -> None:
    """Add a variant with its adapter files and golden vectors to the pack."""
    name, switchable = f"{group.source.name}-{weights_format}", weights_format in group.source.branches
    written = {task: vectors.written[weights_format] for task, vectors in group.vectors.items()}
    for task, vectors in written.items():
        pack.golden.vectors[golden_key(name, task) if switchable else name] = vectors.golden_lists()
    measured = rounding_cosines(list(group.exact.values()), list(written.values()))
    measured = msgspec.structs.replace(measured, headroom=headroom(group.writers[weights_format].context))
    files = _write_adapters(plan, group, weights_format, codes, pack)
    merged = None if switchable else next(iter(group.runs))
    device = plan.formats[weights_format].device
    pack.add_variant(name, VariantKind(merged, weights_format, device, files), measured)


def _write_adapters(
    plan: ExportPlan,
    group: _Group,
    weights_format: WeightsFormat,
    codes: Mapping[str, SpaceCodes],
    pack: PackBuilder,
) -> dict[str, str]:
    """Write the adapters of a switchable variant; the file of each task that has one, nothing for a merged variant."""
    branches, files = group.source.branches.get(weights_format), {}
    for task in group.runs:
        adapter = plan.tasks[task].adapter
        if branches is not None and adapter is not None:
            files[task] = f"adapters/{task}.{weights_format}.onnx_adapter"
            tensors = branches.tensors(adapter, plan.model.rules) | codes[plan.tasks[task].space].center_inputs
            write_adapter(tensors, pack.folder / files[task])
    return files
