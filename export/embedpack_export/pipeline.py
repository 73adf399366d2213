"""The story of an export: plan, calibrate and write stage by stage, measure; complete the pack, compare it, report."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedpack.engine.golden import GoldenCase, golden_cases, golden_key
from embedpack.errors import CheckpointError
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from embedpack.pack.manifest import Manifest, Task, WeightsFormat
from embedpack.progress import Progress
from embedpack_export.arrays import Float32
from embedpack_export.assembly.manifest import write_manifest_and_files
from embedpack_export.assembly.new_folder import check_output, new_pack
from embedpack_export.assembly.pack_builder import PackBuilder, VariantKind
from embedpack_export.gate.writing import report_accuracy
from embedpack_export.graph.context import StagedModel
from embedpack_export.graph.lora_branches import AdapterBranches, write_adapter
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.choice import choose_reference
from embedpack_export.sources.peft_adapter import PeftAdapter
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.closeness import Vectors, accuracy
from embedpack_export.stages.exact_run import ExactRun, Feeds, run_exact_stage, run_heads
from embedpack_export.stages.graph_writer import GraphWriter, LinearWriting
from embedpack_export.stages.heads import text_heads, vision_heads
from embedpack_export.stages.inputs import Inputs, image_feeds, text_inputs
from embedpack_export.stages.output_codes import TaskCodes, fit_codes
from embedpack_export.stages.written_run import AdapterFeeds, FormatWriters, WrittenRun

logger = logging.getLogger("embedpack")


def export(settings: ExportSettings) -> Manifest:
    """Write a pack.

    Returns:
        Its manifest.

    Raises:
        CheckpointError: the checkpoint or an adapter cannot be exported.
        InputError, CapacityError: the pack cannot be written.
        AccuracyError: what was written is further from the model than its budget allows.
        MissingExtraError: the settings ask for a reference that is not installed.
    """
    check_output(settings.output, overwrite=settings.overwrite)
    plan = make_plan(settings)
    with (
        new_pack(settings.output, overwrite=settings.overwrite) as folder,
        tempfile.TemporaryDirectory(prefix=".calibration.", dir=settings.output.parent) as scratch,
    ):
        pack = PackBuilder(folder, Path(scratch), settings.weights)
        embeds = _write_vision(plan, pack)
        codes = _write_switchable(plan, embeds, pack) if "switchable" in settings.adapter_modes else {}
        for task in plan.tasks if "merged" in settings.adapter_modes else ():
            _write_task(plan, task, embeds, codes.get(task), pack)
        manifest = write_manifest_and_files(settings, plan, pack)
        reference = choose_reference(plan, pack.exact, settings.reference)
        manifest = report_accuracy(pack.folder, manifest, plan, reference, settings)
    logger.info("%s: %d variants, %.1f MB", settings.output, len(manifest.variants), _megabytes(manifest))
    return manifest


@dataclass(frozen=True)
class _Embeds:
    """Vectors of the images among the inputs: exact ones, and those of the vision graph of each weights format."""

    exact: Sequence[Float32]
    written: Mapping[WeightsFormat, Sequence[Float32]]


def _write_vision(plan: ExportPlan, pack: PackBuilder) -> _Embeds:
    """Write the vision graphs, which all tasks share."""
    if plan.model.vision is None:
        return _Embeds([], {name: [] for name in pack.weights})
    vision, feeds = plan.model.vision, image_feeds(plan)
    weights = Weights(plan.checkpoint, None, plan.model.rules, vision.tensors.search)
    exact_run = ExactRun(weights, feeds, observed=len(feeds) - 1)
    writers = {
        name: GraphWriter(f"vision-{name}", pack.store, vision.model, weights, LinearWriting(plan.formats[name]))
        for name in pack.weights
    }
    written = {name: [WrittenRun(feeds)] for name in writers}
    _advance("vision", vision.model, [exact_run], FormatWriters(writers, written), pack)
    weights.check_all_used()
    for name, writer in writers.items():
        writer.finish(vision_heads, pack.folder / f"vision-{name}.onnx")
        pack.add_vision(name)
    return _Embeds(exact_run.hidden, {name: found[0].hidden for name, found in written.items()})


def _write_task(plan: ExportPlan, task: str, embeds: _Embeds, codes: TaskCodes | None, pack: PackBuilder) -> None:
    """Write all merged variants of a task, calibrated and measured against the same weights in float32.

    `codes` are those of its switchable variants, so that vectors of both can be compared; None: there are none.
    """
    pack.golden.cases[task] = _golden_cases(plan, task)
    weights, inputs = _task_weights(plan, task), text_inputs(plan, plan.tasks[task], pack.golden.cases[task])
    exact_run = ExactRun(weights, inputs.feeds(embeds.exact), len(inputs.calibration))
    writers = {
        name: GraphWriter(f"{task}-{name}", pack.store, plan.model.text, weights, LinearWriting(plan.formats[name]))
        for name in pack.weights
    }
    written = {name: [WrittenRun(inputs.feeds(embeds.written[name]))] for name in writers}
    _advance(task, plan.model.text, [exact_run], FormatWriters(writers, written), pack)
    exact = _vectors(plan, inputs, exact_run, pack)
    pack.exact[task] = inputs, exact
    codes = codes or fit_codes(plan, {task: exact}, rotate=True)[task]
    offsets = {name: _offset(name, [(inputs, exact_run, written_run)]) for name, (written_run,) in written.items()}
    _finish(plan, task, writers, (codes, offsets), pack)
    weights.check_all_used()
    _add_task(plan, task, weights, codes, pack)
    for name, (written_run,) in written.items():
        end = ExactRun(weights, written_run.feeds, 0, written_run.hidden)
        found = _vectors(plan, inputs, end, pack, offsets[name])
        pack.add_variant(f"{task}-{name}", VariantKind(task, name, {}), accuracy([exact], [found]))
        pack.golden.vectors[f"{task}-{name}"] = found.golden_lists()


def _write_switchable(plan: ExportPlan, embeds: _Embeds, pack: PackBuilder) -> dict[str, TaskCodes]:
    """Write the switchable variants: one backbone, calibrated with all adapters, and a file for each of these.

    Returns:
        The codes of each task. They share the steps of int8 codes; centers travel with the adapters. A rotation would
        have to as well, and is not worth its size.
    """
    adapters, rules = _all_adapters(plan), plan.model.rules
    modules = frozenset(rules.normal(module) for adapter in adapters.values() for module in adapter.updates)
    branches = {name: AdapterBranches(modules) for name in pack.weights}
    backbone = Weights(plan.checkpoint, None, rules, plan.is_text_tensor)
    writers = {
        name: GraphWriter(
            f"switchable-{name}",
            pack.store,
            plan.model.text,
            backbone,
            LinearWriting(plan.formats[name], branches[name]),
        )
        for name in pack.weights
    }
    runs = _switchable_runs(plan, embeds, branches, pack)
    written = {name: [run.written[name] for run in runs.values()] for name in writers}
    _advance("switchable", plan.model.text, [run.exact for run in runs.values()], FormatWriters(writers, written), pack)
    exact = {task: _vectors(plan, run.inputs, run.exact, pack) for task, run in runs.items()}
    pack.exact.update({task: (run.inputs, exact[task]) for task, run in runs.items()})
    codes = fit_codes(plan, exact, rotate=False)
    offsets = {
        name: _offset(name, [(run.inputs, run.exact, run.written[name]) for run in runs.values()]) for name in writers
    }
    _finish(plan, "switchable", writers, (next(iter(codes.values())).shared, offsets), pack)
    for task, run in runs.items():
        run.exact.weights.check_all_used()
        _add_task(plan, task, run.exact.weights, codes[task], pack)
    for name in writers:
        found = {task: _vectors(plan, run.inputs, run.end(name), pack, offsets[name]) for task, run in runs.items()}
        tensors = {
            task: branches[name].tensors(adapter, rules) | codes[task].center_inputs
            for task, adapter in adapters.items()
        }
        _add_switchable(name, tensors, (exact, found), pack)
    return codes


@dataclass(frozen=True)
class _SwitchableRun:
    """The inputs of a task on their way through the exact model, and through what was written in each format."""

    inputs: Inputs
    exact: ExactRun
    written: Mapping[WeightsFormat, WrittenRun]

    def end(self, weights_format: WeightsFormat) -> ExactRun:
        """Where the inputs arrived in a format."""
        written_run = self.written[weights_format]
        return ExactRun(self.exact.weights, written_run.feeds, 0, written_run.hidden)


def _switchable_runs(
    plan: ExportPlan, embeds: _Embeds, branches: Mapping[WeightsFormat, AdapterBranches], pack: PackBuilder
) -> dict[str, _SwitchableRun]:
    """The inputs of each task at the start of all models."""
    runs = {}
    for task, adapter in _all_adapters(plan).items():
        pack.golden.cases[task] = _golden_cases(plan, task)
        inputs = text_inputs(plan, plan.tasks[task], pack.golden.cases[task])
        runs[task] = _SwitchableRun(
            inputs,
            ExactRun(_task_weights(plan, task), inputs.feeds(embeds.exact), len(inputs.calibration)),
            {
                name: WrittenRun(inputs.feeds(embeds.written[name]), AdapterFeeds(branch, adapter, plan.model.rules))
                for name, branch in branches.items()
            },
        )
    return runs


def _add_switchable(
    weights_format: WeightsFormat,
    adapters: Mapping[str, Feeds],
    vectors: tuple[Mapping[str, Vectors], Mapping[str, Vectors]],
    pack: PackBuilder,
) -> None:
    """Write the adapters' files of a switchable variant and take it in.

    By task: in `adapters` the inputs of the graph, in `vectors` exact ones, and those of the variant.
    """
    name, files = f"switchable-{weights_format}", {}
    exact, found = vectors
    for task, tensors in adapters.items():
        files[task] = f"adapters/{task}.{weights_format}.onnx_adapter"
        write_adapter(tensors, pack.folder / files[task])
        pack.golden.vectors[golden_key(name, task)] = found[task].golden_lists()
    pack.add_variant(
        name, VariantKind(None, weights_format, files), accuracy(list(exact.values()), list(found.values()))
    )


def _all_adapters(plan: ExportPlan) -> dict[str, PeftAdapter]:
    """The adapter of each task; there must be one."""
    adapters = {task: item.adapter for task, item in plan.tasks.items() if item.adapter is not None}
    if len(adapters) < len(plan.tasks):
        raise CheckpointError("switchable adapters were asked for, but the checkpoint has none; export it merged")
    return adapters


def _advance(
    label: str, model: StagedModel, runs: Sequence[ExactRun], writing: FormatWriters, pack: PackBuilder
) -> None:
    """Run the stages in float32, write each with what was seen of it, and run what was written; then the next one."""
    with Progress(f"writing {label}", len(model.stages)) as progress:
        for index in range(len(model.stages)):
            writing.append(index, run_exact_stage(model, index, runs, pack.scratch))
            progress.advance(1)


def _offset(weights_format: WeightsFormat, runs: Sequence[tuple[Inputs, ExactRun, WrittenRun]]) -> Float32 | None:
    """What the last hidden states of a variant lack in the mean; None in float32, where nothing was rounded.

    A large part of what rounding does to a decoder's vectors is the same for all of them: it can be taken back.
    """
    if weights_format == "fp32":
        return None
    lacking = [
        inputs.mean_vector(exact_run.hidden) - inputs.mean_vector(written_run.hidden)
        for inputs, exact_run, written_run in runs
    ]
    return np.mean(lacking, axis=0).astype(np.float32)


def _vectors(
    plan: ExportPlan, inputs: Inputs, exact_run: ExactRun, pack: PackBuilder, offset: Float32 | None = None
) -> Vectors:
    """What the heads make of the last hidden states."""
    outputs = [SENTENCE_EMBEDDING] if plan.model.tokens is None else [SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS]
    found = run_heads(plan.model.text, text_heads(plan, None, offset), exact_run, outputs, pack.scratch)
    seen, golden = found[: len(inputs.calibration)], found[len(inputs.calibration) :]
    return Vectors(
        single=np.concatenate([item[0] for item in seen]),
        tokens=None if plan.model.tokens is None else inputs.real_tokens([item[1] for item in seen]),
        golden=np.concatenate([item[0] for item in golden]),
    )


def _finish(
    plan: ExportPlan,
    label: str,
    writers: Mapping[WeightsFormat, GraphWriter],
    ends: tuple[TaskCodes, Mapping[WeightsFormat, Float32 | None]],
    pack: PackBuilder,
) -> None:
    codes, offsets = ends
    for name, writer in writers.items():
        writer.finish(text_heads(plan, codes, offsets[name]), pack.folder / f"{label}-{name}.onnx")


def _task_weights(plan: ExportPlan, task: str) -> Weights:
    return Weights(plan.checkpoint, plan.tasks[task].adapter, plan.model.rules, plan.is_text_tensor)


def _golden_cases(plan: ExportPlan, task: str) -> list[GoldenCase]:
    return golden_cases(plan.tasks[task].prompts.values(), images=plan.model.vision is not None)


def _add_task(plan: ExportPlan, task: str, weights: Weights, codes: TaskCodes, pack: PackBuilder) -> None:
    """Write the codebooks of a task and take it in."""
    file = f"calibration/{task}.safetensors"
    codes.write(pack.folder / file)
    pack.tasks[task] = Task(
        prompts=dict(plan.tasks[task].prompts),
        default_prompt_name=plan.tasks[task].default_prompt_name,
        int8_scale=codes.int8_scales[SENTENCE_EMBEDDING],
        token_int8_scale=codes.int8_scales.get(TOKEN_EMBEDDINGS),
        codes=codes.record(SENTENCE_EMBEDDING, plan, file),
        token_codes=codes.record(TOKEN_EMBEDDINGS, plan, file) if TOKEN_EMBEDDINGS in codes.fits else None,
        adapter=weights.adapter_record(),
    )


def _megabytes(manifest: Manifest) -> float:
    return sum(entry.bytes for entry in manifest.files.values()) / 1e6
