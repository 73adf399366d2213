"""An export from end to end: plan, calibrate and write stage by stage, complete the pack, check its accuracy."""

from __future__ import annotations

import logging

from embedpack.pack.manifest import Manifest
from embedpack_export.accuracy_check.writing import report_accuracy, report_scores
from embedpack_export.assembly.manifest import write_manifest_and_files
from embedpack_export.assembly.new_folder import check_output, new_pack
from embedpack_export.assembly.pack_builder import PackBuilder
from embedpack_export.assembly.score_graphs import write_score_graphs
from embedpack_export.assembly.text_graphs import write_text_graphs
from embedpack_export.assembly.vision_graphs import finish_vision_graphs, write_vision_stages
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.score_head import ScorePlan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.choice import choose_reference
from embedpack_export.reference.score_reference import choose_score_reference

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
    if plan.scores is not None:
        return _export_scores(settings, plan, plan.scores)
    choice = choose_reference(plan, settings)
    with new_pack(settings.output, overwrite=settings.overwrite) as new:
        pack = PackBuilder(new.folder, new.scratch, settings.weights)
        vision = write_vision_stages(plan, pack)
        codes = write_text_graphs(plan, plan.adapter_modes, vision.images, pack)
        finish_vision_graphs(plan, vision, codes, pack)
        manifest = write_manifest_and_files(settings, plan, pack)
        reference = choice.with_recorded(plan, pack.recorded)
        manifest = report_accuracy(pack.folder, manifest, plan, reference, settings)
    _log_size(settings, manifest)
    return manifest


def _export_scores(settings: ExportSettings, plan: ExportPlan, scores: ScorePlan) -> Manifest:
    """Write a pack that gives scores; result and errors as of `export`."""
    choice = choose_score_reference(plan, scores, settings)
    with new_pack(settings.output, overwrite=settings.overwrite) as new:
        pack = PackBuilder(new.folder, new.scratch, settings.weights)
        vision = write_vision_stages(plan, pack)
        write_score_graphs(plan, scores, vision.images, pack)
        finish_vision_graphs(plan, vision, {}, pack)
        manifest = write_manifest_and_files(settings, plan, pack)
        reference = choice.with_recorded(pack.recorded_scores)
        manifest = report_scores(pack.folder, manifest, plan, reference, settings)
    _log_size(settings, manifest)
    return manifest


def _log_size(settings: ExportSettings, manifest: Manifest) -> None:
    megabytes = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    logger.info("%s: %s, %.1f MB", settings.output, ", ".join(manifest.variants), megabytes)
