"""Manifest of a pack, and the files that an export writes last."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import msgspec

from embedpack.pack.digests import describe_file
from embedpack.pack.folder import write_manifest
from embedpack.pack.input_recipes import TextInput
from embedpack.pack.manifest import FORMAT, ExportRecord, Manifest, MultiVectors, SingleVectors
from embedpack_export.assembly.pack_builder import PackBuilder
from embedpack_export.families.heads import SingleHead, TokenHead
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import DEFAULT_CODE_CENTER, DEFAULT_INT4_METHOD, ExportSettings
from embedpack_export.sources.license import pack_license

GOLDEN_FILE = "report/golden.json"
TOOLS = ("embedpack", "numpy", "onnx", "onnx-ir", "onnxruntime", "tokenizers")


def write_manifest_and_files(settings: ExportSettings, plan: ExportPlan, pack: PackBuilder) -> Manifest:
    """Write tokenizer, licence and golden vectors, then the manifest, which names all files."""
    folder = pack.folder
    adapters = {task.adapter.folder for task in plan.tasks.values() if task.adapter and task.adapter.files}
    license, license_text = pack_license(plan.folder, sorted(adapters))
    contents = {
        "tokenizer.json": plan.tokenizer_json,
        "LICENSE": license_text.encode(),
        GOLDEN_FILE: msgspec.json.format(
            msgspec.json.encode(pack.golden if plan.scores is None else pack.golden_scores), indent=0
        ),
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    model = plan.model
    manifest = Manifest(
        format=FORMAT,
        kind="embedder" if plan.scores is None else "reranker",
        name=plan.name,
        family=plan.family,
        source=plan.source,
        license=license,
        single=None if plan.single is None else _single_vectors(plan, plan.single),
        multi=_multi_vectors(plan.tokens),
        score=plan.maxsim if plan.scores is None else plan.scores.recipe,
        late_chunking=plan.late_chunking,
        text=TextInput(
            tokenizer="tokenizer.json",
            vocabulary=model.vocabulary,
            max_tokens=plan.max_tokens,
            pad_token_id=plan.texts.pad_token_id,
            strip=model.text_rules.strip,
            after=model.text_rules.after,
        ),
        image=None if model.vision is None else model.vision.image,
        vision=pack.vision,
        spaces=pack.spaces,
        tasks={name: pack.tasks[name] for name in plan.tasks},
        default_task=model.default_task if model.default_task in plan.tasks else None,
        variants=pack.variants,
        golden=GOLDEN_FILE,
        export=ExportRecord(
            settings=_settings_record(settings, plan),
            tools={name: importlib.metadata.version(name) for name in TOOLS},
            calibration=plan.calibration.sha256,
            seed=settings.seed,
        ),
        files={path.relative_to(folder).as_posix(): describe_file(path) for path in paths},
    )
    write_manifest(folder, manifest)
    return manifest


def _settings_record(settings: ExportSettings, plan: ExportPlan) -> dict[str, Any]:
    """Settings of the export; the later ones of these only if they are not the default."""
    record: dict[str, Any] = {
        "weights": list(settings.weights),
        "adapters": sorted(settings.adapters),
        "adapter_modes": list(plan.adapter_modes),
        "max_loss": settings.max_loss,
        "allow_loss": settings.allow_loss,
    }
    if settings.int4_method != DEFAULT_INT4_METHOD:
        record["int4_method"] = settings.int4_method
    if settings.code_center != DEFAULT_CODE_CENTER:
        record["code_center"] = settings.code_center
    if settings.text_tokens:
        record["text_tokens"] = list(settings.text_tokens)
    return record | settings.prompts.record(plan.tasks)


def _single_vectors(plan: ExportPlan, head: SingleHead) -> SingleVectors:
    return SingleVectors(
        dimensions=plan.dimensions,
        truncate_dims=plan.truncate_dims,
        pooling=head.pooling,
        normalized=head.normalize,
        similarity=head.similarity,
    )


def _multi_vectors(head: TokenHead | None) -> MultiVectors | None:
    return None if head is None else MultiVectors(dimensions=head.dimensions, truncate_dims=head.allowed_dims)
