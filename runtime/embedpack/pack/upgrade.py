"""Manifests of older formats, read as those of today's format."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from embedpack.pack.accuracy_records import Accuracy, Check, Cosines, TokenCosines
from embedpack.pack.format_2 import Accuracy2, Check2, CodeCalibration2, Manifest2, Task2, TokenAccuracy2, Variant2
from embedpack.pack.input_recipes import Prompt, QwenImage, TextInput
from embedpack.pack.manifest import FORMAT, Manifest, MultiVectors, SingleVectors, Space, Task, VectorCodes
from embedpack.pack.strict import Strict
from embedpack.pack.variants import Variant, VisionGraph

New = TypeVar("New", bound=Strict)


def upgraded(value: Any) -> Manifest:
    """Read the decoded JSON of a manifest of format 2.0.

    Raises:
        msgspec.ValidationError: a field is missing, unknown or has a wrong value; the JSON path is that of the file.
    """
    old = msgspec.convert(value, Manifest2)
    for name, task in old.tasks.items():
        _check_codes(old, task, f"$.tasks[{name!r}]")
    size, multi = old.dimensions, old.multi_vector_dimensions
    return Manifest(
        format=FORMAT,
        kind="embedder",
        name=old.name,
        family=old.family,
        source=old.source,
        license=old.license,
        single=SingleVectors(
            dimensions=size,
            truncate_dims=old.truncate_dims,
            pooling=old.pooling,
            normalized=True,
            similarity="cosine",
        ),
        multi=None if multi is None else MultiVectors(dimensions=multi, truncate_dims=(multi,)),
        score=None,
        late_chunking=False,
        text=_with(TextInput, old.text, {"strip": False, "after": ()}),
        image=None if old.image is None else _with(QwenImage, old.image, {"hidden": size}),
        vision={weights: _with(VisionGraph, graph, {"gives": "tokens"}) for weights, graph in old.vision.items()},
        spaces={name: _space(task) for name, task in old.tasks.items()},
        tasks={name: _task(name, task) for name, task in old.tasks.items()},
        default_task=None,
        variants={name: _variant(variant) for name, variant in old.variants.items()},
        golden=old.golden,
        export=old.export,
        files=old.files,
        report=old.report,
    )


def _check_codes(old: Manifest2, task: Task2, path: str) -> None:
    """Refuse codes that format 3.0 cannot express, as the rules of format 2.0 did."""
    for field, value in (("token_int8_scale", task.token_int8_scale), ("token_codes", task.token_codes)):
        if (value is None) != (old.multi_vector_dimensions is None):
            raise msgspec.ValidationError(f"{field} and multi_vector_dimensions do not agree - at `{path}.{field}`")
    if task.token_codes is not None and task.token_codes.file != task.codes.file:
        raise msgspec.ValidationError(f"the codebooks of a task must be in one file - at `{path}.token_codes.file`")


def _space(task: Task2) -> Space:
    multi = None
    if task.token_codes is not None and task.token_int8_scale is not None:
        multi = _codes(task.token_int8_scale, task.token_codes)
    return Space(
        codebooks=task.codes.file, inputs=task.codes.texts, single=_codes(task.int8_scale, task.codes), multi=multi
    )


def _codes(scale: float, codes: CodeCalibration2) -> VectorCodes:
    return VectorCodes(int8_scale=scale, kept=codes.kept, recall_at_10=codes.agreement)


def _task(name: str, task: Task2) -> Task:
    return Task(
        space=name,
        prompts={key: Prompt(prefix=prefix) for key, prefix in task.prompts.items()},
        default_prompt_name=task.default_prompt_name,
        adapter=task.adapter,
    )


def _variant(variant: Variant2) -> Variant:
    accuracy = Accuracy(
        reference=variant.accuracy.reference,
        inputs=variant.accuracy.texts,
        single=_cosines(variant.accuracy),
        multi=_token_cosines(variant.accuracy.tokens),
    )
    checks = {task: _check(check) for task, check in variant.checks.items()}
    return _with(Variant, variant, {"device": "cpu", "accuracy": accuracy, "checks": checks})


def _check(check: Check2) -> Check:
    return Check(
        reference=check.reference,
        texts=check.texts,
        single=_cosines(check),
        multi=_token_cosines(check.tokens),
        ranking_loss=check.ranking_loss,
        ranking_loss_95=check.ranking_loss_95,
        top_10_overlap=check.top_10_overlap,
        budget=check.budget,
        outcome=check.verdict,
    )


def _cosines(accuracy: Accuracy2 | Check2) -> Cosines:
    return Cosines(mean=accuracy.cosine_mean, p1=accuracy.cosine_p1, min=accuracy.cosine_min)


def _token_cosines(tokens: TokenAccuracy2 | None) -> TokenCosines | None:
    return None if tokens is None else TokenCosines(tokens=tokens.tokens, mean=tokens.cosine_mean, p1=tokens.cosine_p1)


def _with(kind: type[New], old: Strict, added: dict[str, Any]) -> New:
    """A struct with the fields of an older one, and those that were added."""
    return kind(**(msgspec.structs.asdict(old) | added))
