"""Export plan: all decisions of an export before it writes anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from embedpack.errors import CheckpointError
from embedpack.pack.manifest import Source
from embedpack.pack.strict import AdapterMode, WeightsFormat
from embedpack_export.families.model import Model
from embedpack_export.graph.context import LinearFormat
from embedpack_export.graph.formats.by_name import linear_formats
from embedpack_export.planning.calibration_texts import CalibrationSet, read_calibration
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.prompt_options import PROMPTS_OF_FILES
from embedpack_export.planning.settings import DEFAULT_CODE_CENTER, CodeCenter, ExportSettings
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.planning.tasks import TaskNames
from embedpack_export.planning.text_inputs import TextOptions


@dataclass(frozen=True)
class ExportPlan(ModelSource):
    """A model source with the decisions of an export; `truncate_dims` are the truncations that the pack allows."""

    calibration: CalibrationSet
    source: Source  # record of the source for the manifest
    formats: Mapping[WeightsFormat, LinearFormat]
    adapter_modes: tuple[AdapterMode, ...]
    code_center: CodeCenter  # center and rotation of low-bit codes
    seed: int  # seed of all random choices

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.source.name


def make_plan(settings: ExportSettings) -> ExportPlan:
    """Read the model source and the calibration texts.

    Raises:
        CheckpointError: the checkpoint or an adapter is damaged, contradictory or leaves a decision open.
        InputError: the calibration texts cannot be read.
    """
    source = read_model_source(
        settings.checkpoint,
        adapters=settings.adapters,
        tasks=TaskNames(settings.tasks, settings.base_task),
        modality=settings.modality,
        pooling=settings.pooling,
        texts=TextOptions(settings.max_tokens, settings.text_tokens, settings.prompts),
    )
    if source.scores is not None:
        _check_score_settings(settings)
    return ExportPlan(
        folder=source.folder,
        checkpoint=source.checkpoint,
        family=source.family,
        model=_with_truncations(settings, source),
        tasks=source.tasks,
        single=source.single,
        maxsim=source.maxsim,
        scores=source.scores,
        truncate_dims=() if source.single is None else _truncate_dims(settings, source),
        texts=source.texts,
        module_files=source.module_files,
        calibration=read_calibration(settings.calibrate),
        source=Source(
            # Not resolve(): a link's own name is what the user calls the model.
            name=settings.name or Path(os.path.abspath(settings.checkpoint)).name,
            revision=settings.revision,
            files=source.files,
            fingerprint=source.fingerprint,
        ),
        formats=linear_formats(settings.int4_method, settings.device or "cpu"),
        adapter_modes=settings.adapter_modes or (_adapter_mode(settings, source),),
        code_center=settings.code_center,
        seed=settings.seed,
    )


def _check_score_settings(settings: ExportSettings) -> None:
    """Refuse options of vectors for a model that gives scores."""
    given = {
        "--truncate-dim": bool(settings.truncate_dims),
        "--code-center": settings.code_center != DEFAULT_CODE_CENTER,
        "--adapters switchable": "switchable" in settings.adapter_modes,
        "--prompt": settings.prompts != PROMPTS_OF_FILES,
    }
    for option, is_given in given.items():
        if is_given:
            raise CheckpointError(f"{option} is of no use: {settings.checkpoint} gives scores; leave it out")


def _adapter_mode(settings: ExportSettings, source: ModelSource) -> AdapterMode:
    """Mode of an export that names none; one task is one graph in any mode, and merged is the faster one."""
    adapted = [task for task, plan in source.tasks.items() if plan.adapter is not None]
    return source.model.adapter_mode if adapted and len(source.tasks) > 1 and not settings.adapters else "merged"


def _with_truncations(settings: ExportSettings, source: ModelSource) -> Model:
    """The model; of one that gives multi-vectors alone with the truncations of the settings, if they have any."""
    tokens = source.tokens
    if source.single is not None or tokens is None or not settings.truncate_dims:
        return source.model
    head = replace(tokens, truncate_dims=settings.truncate_dims)
    if head.allowed_dims[0] < 1 or head.allowed_dims[-1] > head.dimensions:
        raise CheckpointError(
            f"truncations {list(head.allowed_dims)} are not possible; the vectors have {head.dimensions} dimensions"
        )
    return replace(source.model, heads=replace(source.model.heads, tokens=head))


def _truncate_dims(settings: ExportSettings, source: ModelSource) -> tuple[int, ...]:
    """Truncations of the settings, else of the source; the full dimension is always one of them."""
    if source.scores is not None:
        return ()
    full = source.dimensions
    dims = sorted({*(settings.truncate_dims or source.truncate_dims), full})
    if dims[0] < 1 or dims[-1] > full:
        raise CheckpointError(f"truncations {dims} are not possible; the vectors have {full} dimensions")
    return tuple(dims)
