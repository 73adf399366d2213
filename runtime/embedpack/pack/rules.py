"""Cross-checks of a manifest: contradictions between its parts, each with its JSON path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from embedpack.errors import unknown
from embedpack.pack.manifest import MANIFEST_NAME, FileEntry, Manifest

# Longest name of a file or folder on common file systems.
MAX_NAME_BYTES = 255


def contradictions(manifest: Manifest) -> Iterator[str]:
    """Contradictions between the parts of a manifest, each with its JSON path."""
    yield from bad_paths(manifest.files)
    if list(manifest.truncate_dims) != sorted(set(manifest.truncate_dims)):
        yield "the truncations are not ascending - at `$.truncate_dims`"
    if manifest.text.pad_token_id >= manifest.text.vocabulary:
        yield f"the pad token is not below the vocabulary, {manifest.text.vocabulary} - at `$.text.pad_token_id`"
    if not manifest.truncate_dims or manifest.truncate_dims[-1] != manifest.dimensions:
        yield f"the last truncation is not the full dimension, {manifest.dimensions} - at `$.truncate_dims`"
    for name, task in manifest.tasks.items():
        if task.default_prompt_name is not None and task.default_prompt_name not in task.prompts:
            yield f"{unknown('prompt', task.default_prompt_name, task.prompts)} - at `$.tasks[{name!r}]`"
    yield from _bad_variants(manifest)
    yield from _bad_inputs_and_heads(manifest)
    for where, file in _references(manifest):
        if file not in manifest.files:
            yield f"{file!r} is not listed in `$.files` - at `{where}`"


def _bad_variants(manifest: Manifest) -> Iterator[str]:
    if not manifest.variants:
        yield "there is no variant - at `$.variants`"
    used: set[str] = set()
    for name, variant in manifest.variants.items():
        path = f"$.variants[{name!r}]"
        tasks = {variant.task} if variant.task is not None else set(variant.adapter_files)
        for task in sorted(tasks - set(manifest.tasks)):
            yield f"{unknown('task', task, manifest.tasks)} - at `{path}.task`"
        switchable = variant.task is None and tasks == set(manifest.tasks)
        if not (switchable if variant.adapters == "switchable" else variant.task is not None):
            yield f"merged variants need one task, switchable ones an adapter file per task - at `{path}.adapters`"
        if variant.adapters == "merged" and variant.adapter_files:
            yield f"a merged variant has no adapter files - at `{path}.adapter_files`"
        for task in sorted(set(variant.checks) - tasks):
            yield f"task {task!r} is not a task of the variant - at `{path}.checks`"
        if manifest.image is not None and variant.weights not in manifest.vision:
            yield f"there is no {variant.weights} vision graph - at `{path}.weights`"
        used |= tasks
    for name in (task for task in manifest.tasks if task not in used):
        yield f"task {name!r} has no variant - at `$.tasks[{name!r}]`"


def _bad_inputs_and_heads(manifest: Manifest) -> Iterator[str]:
    for name, task in manifest.tasks.items():
        for field, value in (("token_int8_scale", task.token_int8_scale), ("token_codes", task.token_codes)):
            if (value is None) != (manifest.multi_vector_dimensions is None):
                yield f"{field} and multi_vector_dimensions do not agree - at `$.tasks[{name!r}].{field}`"
        if task.token_codes is not None and task.token_codes.file != task.codes.file:
            yield f"the codebooks of a task must be in one file - at `$.tasks[{name!r}].token_codes.file`"
    image = manifest.image
    if image is None:
        return
    for token in (*image.tokens_before, image.token, *image.tokens_after):
        if token >= manifest.text.vocabulary:
            yield f"token {token} is not below the vocabulary, {manifest.text.vocabulary} - at `$.image`"
    if image.pooled_before > len(image.tokens_before) or image.pooled_after > len(image.tokens_after):
        yield "more tokens are pooled than exist - at `$.image`"
    if image.min_pixels > image.max_pixels:
        yield "min_pixels is above max_pixels - at `$.image`"


def _references(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """All files that parts of the manifest refer to, with the JSON paths of these parts."""
    yield "$.text.tokenizer", manifest.text.tokenizer
    yield "$.golden", manifest.golden
    if manifest.report is not None:
        yield "$.report.figures", manifest.report.figures
        yield "$.report.page", manifest.report.page
    for name, task in manifest.tasks.items():
        yield f"$.tasks[{name!r}].codes.file", task.codes.file
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
