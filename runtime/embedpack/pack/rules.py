"""Cross-checks of a manifest: contradictions between its parts, each with its JSON path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from embedpack.errors import unknown
from embedpack.pack.input_rules import bad_inputs
from embedpack.pack.manifest import MANIFEST_NAME, FileEntry, Manifest, MultiVectors, SingleVectors
from embedpack.pack.score_rules import bad_scores
from embedpack.pack.variants import Variant

# Longest name of a file or folder on common file systems.
MAX_NAME_BYTES = 255


def contradictions(manifest: Manifest) -> Iterator[str]:
    """Contradictions between the parts of a manifest, each with its JSON path."""
    yield from bad_paths(manifest.files)
    yield from _bad_heads(manifest)
    yield from bad_inputs(manifest)
    yield from _bad_tasks(manifest)
    yield from _bad_variants(manifest)
    yield from _bad_spaces(manifest)
    yield from _bad_accuracy(manifest)
    yield from bad_scores(manifest)
    for where, file in _references(manifest):
        if file not in manifest.files:
            yield f"{file!r} is not listed in `$.files` - at `{where}`"


def _bad_heads(manifest: Manifest) -> Iterator[str]:
    vectors = manifest.single is not None or manifest.multi is not None
    if manifest.kind == "embedder" and not vectors:
        yield "an embedder needs single or multi - at `$.kind`"
    if manifest.kind == "reranker" and vectors:
        yield "a reranker has neither single nor multi - at `$.kind`"
    for name, head in (("single", manifest.single), ("multi", manifest.multi)):
        if head is not None:
            yield from _bad_truncations(head, f"$.{name}.truncate_dims")
    if manifest.single is not None and manifest.single.normalized and manifest.single.similarity != "cosine":
        yield "vectors of length 1 are compared by cosine - at `$.single.similarity`"
    if manifest.late_chunking and (manifest.single is None or manifest.single.pooling != "mean"):
        yield "late chunking needs single vectors with mean pooling - at `$.late_chunking`"


def _bad_truncations(head: SingleVectors | MultiVectors, path: str) -> Iterator[str]:
    if list(head.truncate_dims) != sorted(set(head.truncate_dims)):
        yield f"the truncations are not ascending - at `{path}`"
    if not head.truncate_dims or head.truncate_dims[-1] != head.dimensions:
        yield f"the last truncation is not the full dimension, {head.dimensions} - at `{path}`"


def _bad_tasks(manifest: Manifest) -> Iterator[str]:
    for name, task in manifest.tasks.items():
        if task.default_prompt_name is not None and task.default_prompt_name not in task.prompts:
            yield f"{unknown('prompt', task.default_prompt_name, task.prompts)} - at `$.tasks[{name!r}]`"
    if manifest.default_task is not None and manifest.default_task not in manifest.tasks:
        yield f"{unknown('task', manifest.default_task, manifest.tasks)} - at `$.default_task`"


def _bad_spaces(manifest: Manifest) -> Iterator[str]:
    used = set()
    for name, task in manifest.tasks.items():
        path = f"$.tasks[{name!r}].space"
        if (task.space is None) != (manifest.kind == "reranker"):
            yield f"a task of an embedder has a space, that of a reranker has none - at `{path}`"
        elif task.space is not None and task.space not in manifest.spaces:
            yield f"{unknown('space', task.space, manifest.spaces)} - at `{path}`"
        used.add(task.space)
    for name, space in manifest.spaces.items():
        path = f"$.spaces[{name!r}]"
        if name not in used:
            yield f"no task has this space - at `{path}`"
        for head, codes in (("single", space.single), ("multi", space.multi)):
            if (codes is None) != (getattr(manifest, head) is None):
                yield f"a space has codes for the heads of the pack - at `{path}.{head}`"
            lengths = head == "single" and manifest.single is not None and manifest.single.similarity == "dot"
            if codes is not None and codes.int8_scale > 1 and not lengths:
                yield f"vectors of length 1 need a scale of at most 1 - at `{path}.{head}.int8_scale`"


def _bad_variants(manifest: Manifest) -> Iterator[str]:
    if not manifest.variants:
        yield "there is no variant - at `$.variants`"
    used: set[str] = set()
    named: dict[tuple[str | None, str], str] = {}
    for name, variant in manifest.variants.items():
        path = f"$.variants[{name!r}]"
        other = named.setdefault((variant.task, variant.weights), name)
        if other != name:
            yield f"{other!r} has the same task and weights - at `{path}`"
        yield from _bad_adapters(manifest, variant, path)
        yield from _bad_graph(manifest, variant, path)
        used |= _tasks_of(manifest, variant)
    for name in (task for task in manifest.tasks if task not in used):
        yield f"task {name!r} has no variant - at `$.tasks[{name!r}]`"


def _tasks_of(manifest: Manifest, variant: Variant) -> set[str]:
    return {variant.task} if variant.task is not None else set(manifest.tasks)


def _bad_adapters(manifest: Manifest, variant: Variant, path: str) -> Iterator[str]:
    adapted = {name for name, task in manifest.tasks.items() if task.adapter is not None}
    named = {variant.task} if variant.task is not None else set(variant.adapter_files)
    for task in sorted(named - set(manifest.tasks)):
        yield f"{unknown('task', task, manifest.tasks)} - at `{path}.task`"
    switchable = variant.task is None and bool(adapted) and named == adapted
    if not (switchable if variant.adapters == "switchable" else variant.task is not None):
        problem = "merged variants need one task, switchable ones a file for each task with an adapter"
        yield f"{problem} - at `{path}.adapters`"
    if variant.adapters == "merged" and variant.adapter_files:
        yield f"a merged variant has no adapter files - at `{path}.adapter_files`"


def _bad_graph(manifest: Manifest, variant: Variant, path: str) -> Iterator[str]:
    for task in sorted(set(variant.checks) - _tasks_of(manifest, variant)):
        yield f"task {task!r} is not a task of the variant - at `{path}.checks`"
    if manifest.image is not None and variant.weights not in manifest.vision:
        yield f"there is no {variant.weights} vision graph - at `{path}.weights`"
    if variant.weights == "fp16" and variant.device != "cuda":
        yield f"fp16 is for the device cuda - at `{path}.device`"


def _bad_accuracy(manifest: Manifest) -> Iterator[str]:
    for name, variant in manifest.variants.items():
        accuracy = variant.accuracy
        measured = {"single": accuracy.single, "multi": accuracy.multi, "score": accuracy.score}
        has_head = {
            "single": manifest.single is not None,
            "multi": manifest.multi is not None,
            "score": manifest.kind == "reranker",
        }
        for head, figures in measured.items():
            if (figures is not None) != has_head[head]:
                path = f"$.variants[{name!r}].accuracy.{head}"
                yield f"a variant has the accuracy of the heads of the pack - at `{path}`"


def _references(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """All files that parts of the manifest refer to, with the JSON paths of these parts."""
    yield "$.text.tokenizer", manifest.text.tokenizer
    yield "$.golden", manifest.golden
    if manifest.report is not None:
        yield "$.report.figures", manifest.report.figures
        yield "$.report.page", manifest.report.page
    for name, space in manifest.spaces.items():
        yield f"$.spaces[{name!r}].codebooks", space.codebooks
    for weights, vision in manifest.vision.items():
        for file in vision.graph_files:
            yield f"$.vision[{weights!r}]", file
    for name, variant in manifest.variants.items():
        for file in (*variant.graph_files, *variant.adapter_files.values()):
            yield f"$.variants[{name!r}]", file


def bad_paths(files: Mapping[str, FileEntry]) -> Iterator[str]:
    """Names that are not plain relative paths inside the pack, each with its JSON path."""
    for name in files:
        path = PurePosixPath(name)
        plain = path.parts and path.as_posix() == name and name.isprintable() and not any(c in name for c in "\\:")
        if not plain or path.is_absolute() or ".." in path.parts or name == MANIFEST_NAME:
            yield f"{name!r} is not a plain path inside the pack - at `$.files`"
        if any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
            yield f"{name[:40]!r}... has a part of more than {MAX_NAME_BYTES} bytes - at `$.files`"
