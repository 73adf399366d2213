"""The story of an export: plan, then for each task merge, build, calibrate, measure; seal the pack at the end."""

from __future__ import annotations

import importlib.metadata
import logging
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import onnx
import onnx_ir as ir

from embedpack.golden import Golden, GoldenCase
from embedpack.pack import (
    FORMAT,
    Accuracy,
    ExportRecord,
    FileEntry,
    Manifest,
    Task,
    TextInput,
    Variant,
    WeightsFormat,
    describe_file,
    write_manifest,
)
from embedpack.progress import Progress
from embedpack.saturation import products_saturate
from embedpack.session import GraphSession
from embedpack.threads import available_cores
from embedpack_export.build import calibration_vectors, write_graph
from embedpack_export.calibration import accuracy, int8_scale
from embedpack_export.graph.builder import OPSET, GraphBuilder
from embedpack_export.graph.formats import FORMATS
from embedpack_export.graph.target import Target
from embedpack_export.license import pack_license
from embedpack_export.observe import Calibrated, calibrate
from embedpack_export.pack_writer import check_output, new_pack
from embedpack_export.passes.unsigned_weights import unsigned_weights
from embedpack_export.plan import ExportPlan, TaskPlan, make_plan
from embedpack_export.settings import ExportSettings
from embedpack_export.weight_store import WeightStore
from embedpack_export.weights import Weights

logger = logging.getLogger("embedpack")

# First release with CPU kernels for all operators that the graphs use (QuantizeLinear of opset 23 is the last).
MIN_ONNXRUNTIME = "1.24.1"
GOLDEN_FILE = "report/golden.json"
GOLDEN_TEXTS = (
    "How do I reset a router?",
    "A",
    "Die Katze schläft auf dem warmen Dach, während es regnet. 猫在屋顶上睡觉。 😀",
    "for name in sorted(os.listdir(folder)): print(name, os.path.getsize(name))",
    "To index a shelf, read every label twice. " * 200,
)


@dataclass
class _Draft:
    """What accumulates while a pack is written."""

    folder: Path
    store: WeightStore
    tasks: dict[str, Task] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    golden: Golden = field(default_factory=lambda: Golden(cases={}, vectors={}))


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
    with new_pack(settings.output, overwrite=settings.overwrite) as folder:
        draft = _Draft(folder, WeightStore(folder))
        for name, task in plan.tasks.items():
            _write_task(plan, name, task, settings.weights, draft)
        manifest = _seal(settings, plan, draft)
    logger.info("%s: %d variants, %.1f MB", settings.output, len(manifest.variants), _megabytes(manifest))
    return manifest


def _write_task(plan: ExportPlan, name: str, task: TaskPlan, formats: tuple[WeightsFormat, ...], draft: _Draft) -> None:
    """Write all variants of a task, calibrated and measured against an fp32 graph of the same merged weights."""
    logger.info("%s: merging, calibrating", name)
    weights = Weights(plan.checkpoint, task.adapter, plan.model.rules)
    with calibrate(plan, task, weights, draft.folder.parent) as calibrated:
        draft.tasks[name] = Task(
            prompts=dict(task.prompts),
            default_prompt_name=task.default_prompt_name,
            int8_scale=int8_scale(calibrated.vectors),
            adapter=weights.adapter_record(),
        )
        prompts = sorted({"", *task.prompts.values()})
        draft.golden.cases[name] = [GoldenCase(prompt=prompt, text=text) for prompt in prompts for text in GOLDEN_TEXTS]
        for weights_format in formats:
            _write_variant(plan, name, weights_format, weights, calibrated, draft)


def _write_variant(
    plan: ExportPlan, task: str, weights_format: WeightsFormat, weights: Weights, calibrated: Calibrated, draft: _Draft
) -> None:
    """Build, write, check and measure one variant."""
    name = f"{task}-{weights_format}"
    path = draft.folder / f"{name}.onnx"
    with Progress(f"writing {name}", calibrated.matrices) as progress:

        def report(matrix: str, relative: float) -> None:
            logger.debug("%s: relative rounding error %.2e", matrix, relative)
            progress.advance(1)

        graph = GraphBuilder(name, draft.store)
        target = Target(graph, weights, FORMATS[weights_format], calibrated.sites, report)
        write_graph(plan, target, draft.tasks[task].int8_scale, path)
    twin = _write_twin(path)
    usable = twin if twin is not None and products_saturate() else path
    measured = accuracy(calibrated.vectors, calibration_vectors(plan, plan.tasks[task], usable))
    draft.variants[name] = _describe_variant(task, weights_format, path, twin, measured)
    draft.golden.vectors[name] = _golden_vectors(plan, draft.golden.cases[task], usable)
    logger.info("%s: cosine to fp32 %.5f, lowest %.5f", name, measured.cosine_mean, measured.cosine_min)


def _write_twin(path: Path) -> Path | None:
    """Check a graph; where it has int8 products, write its twin for CPUs without VNNI beside it."""
    onnx.checker.check_model(str(path), full_check=True)
    model = ir.load(path)
    if not any(node.op_type == "MatMulIntegerToFloat" for node in model.graph):
        return None
    unsigned_weights(model)
    twin = path.with_name(f"{path.stem}.without-vnni.onnx")
    ir.save(model, twin)
    onnx.checker.check_model(str(twin), full_check=True)
    return twin


def _golden_vectors(plan: ExportPlan, cases: list[GoldenCase], graph: Path) -> list[list[float]]:
    encoder = plan.encoder(GraphSession(graph, available_cores()))
    vectors = [encoder.run([case.text], prompt=case.prompt, output="sentence_embedding")[0] for case in cases]
    return [[round(float(value), 6) for value in vector] for vector in vectors]


def _describe_variant(
    task: str, weights_format: WeightsFormat, path: Path, twin: Path | None, measured: Accuracy
) -> Variant:
    graph = ir.load(path).graph
    tensors = [value.const_value for value in graph.initializers.values()]
    return Variant(
        task=task,
        weights=weights_format,
        adapters="merged",
        graph=path.name,
        graph_without_vnni=None if twin is None else twin.name,
        external_data=tuple(sorted({str(item.location) for item in tensors if isinstance(item, ir.ExternalTensor)})),
        opset=OPSET,
        operators=tuple(sorted({f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in graph})),
        min_onnxruntime=MIN_ONNXRUNTIME,
        accuracy=measured,
    )


def _seal(settings: ExportSettings, plan: ExportPlan, draft: _Draft) -> Manifest:
    """Write the remaining files and the manifest that names them all."""
    folder = draft.folder
    license, license_text = pack_license(plan.checkpoint.folder, settings.adapters.values())
    contents = {
        "tokenizer.json": plan.tokenizer_json,
        "LICENSE": license_text.encode(),
        GOLDEN_FILE: msgspec.json.format(msgspec.json.encode(draft.golden), indent=0),
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = Manifest(
        format=FORMAT,
        name=plan.name,
        family=plan.checkpoint.model_type,
        source=plan.source,
        license=license,
        dimensions=plan.model.dimensions,
        truncate_dims=plan.truncate_dims,
        pooling=plan.pooling,
        text=TextInput(
            tokenizer="tokenizer.json",
            vocabulary=plan.model.vocabulary,
            max_tokens=plan.max_tokens,
            pad_token_id=plan.model.pad_token_id,
        ),
        tasks=draft.tasks,
        variants=draft.variants,
        golden=GOLDEN_FILE,
        export=ExportRecord(
            settings={"weights": list(settings.weights), "adapters": sorted(settings.adapters)},
            tools=_tools(),
            calibration=plan.calibration.sha256,
            seed=settings.seed,
        ),
        files=_describe_files(folder),
    )
    write_manifest(folder, manifest)
    return manifest


def _describe_files(folder: Path) -> dict[str, FileEntry]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): describe_file(path) for path in paths}


def _tools() -> dict[str, str]:
    names = ("embedpack", "numpy", "onnx", "onnx-ir", "onnxruntime", "tokenizers")
    return {name: importlib.metadata.version(name) for name in names}


def _megabytes(manifest: Manifest) -> float:
    return sum(entry.bytes for entry in manifest.files.values()) / 1e6
