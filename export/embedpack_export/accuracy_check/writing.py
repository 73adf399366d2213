"""End of an export: check the finished pack, then refuse it, or write its report and its figures."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from embedpack.errors import CapacityError, CheckpointError, InputError
from embedpack.pack.accuracy_records import Report
from embedpack.pack.digests import describe_file
from embedpack.pack.folder import write_manifest
from embedpack.pack.manifest import Manifest
from embedpack_export.accuracy_check.budget import Budget
from embedpack_export.accuracy_check.check import CheckResult, check_pack
from embedpack_export.accuracy_check.figures import FIGURES_FILE, FORMAT, PAGE_FILE, AccuracyFigures
from embedpack_export.accuracy_check.page import accuracy_page
from embedpack_export.accuracy_check.score_check import check_scores
from embedpack_export.html.page import html
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.choice import ChosenReference
from embedpack_export.reference.score_reference import ChosenScores

logger = logging.getLogger("embedpack")
Chosen = TypeVar("Chosen", ChosenReference, ChosenScores)


def report_accuracy(
    folder: Path, manifest: Manifest, plan: ExportPlan, chosen: ChosenReference, settings: ExportSettings
) -> Manifest:
    """Check a finished pack and write the report into it.

    Returns:
        The manifest with the figures and the files of the report, as it was written.

    Raises:
        AccuracyError: a variant is over its budget, or its vectors are those of another model.
    """
    return write_report(
        folder, manifest, _checked(chosen, lambda one: check_pack(folder, plan, one, _budget(settings))), settings
    )


def report_scores(
    folder: Path, manifest: Manifest, plan: ExportPlan, chosen: ChosenScores, settings: ExportSettings
) -> Manifest:
    """Check a finished pack that gives scores; result and errors as of `report_accuracy`."""
    return write_report(
        folder, manifest, _checked(chosen, lambda one: check_scores(folder, plan, one, _budget(settings))), settings
    )


def write_report(folder: Path, manifest: Manifest, result: CheckResult, settings: ExportSettings) -> Manifest:
    """Refuse a pack that fails, or write its figures and its page; result and errors as of `report_accuracy`."""
    result.raise_failures(settings.output)
    _log(result)
    tools = manifest.export.tools | {name: importlib.metadata.version(name) for name in result.reference.packages}
    manifest = msgspec.structs.replace(
        manifest,
        variants={
            name: msgspec.structs.replace(
                variant, checks={task: accuracy.check for task, accuracy in result.variants[name].tasks.items()}
            )
            for name, variant in manifest.variants.items()
        },
        export=msgspec.structs.replace(manifest.export, tools=tools),
        report=Report(figures=FIGURES_FILE, page=PAGE_FILE),
    )
    figures = _figures(manifest, result, settings)
    contents = {
        FIGURES_FILE: msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n",
        PAGE_FILE: html(accuracy_page(manifest, figures)).encode(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = manifest.files | {name: describe_file(folder / name) for name in contents}
    manifest = msgspec.structs.replace(manifest, files=dict(sorted(files.items())))
    write_manifest(folder, manifest)
    return manifest


def _budget(settings: ExportSettings) -> Budget:
    return Budget(settings.max_loss, settings.allow_loss)


def _checked(chosen: Chosen, check: Callable[[Chosen], CheckResult]) -> CheckResult:
    """Compare the pack with the chosen reference, or with the fp32 graph if that one fails: the pack is finished."""
    try:
        return check(chosen)
    except (CheckpointError, InputError, CapacityError) as failure:
        if chosen.main is chosen.fp32_graph:
            raise
        logger.warning("reference: the fp32 graph, because torch failed: %s", failure)
        note = f"The reference is not torch, which failed when the pack was finished: {failure}."
        return check(chosen.without_torch(note))


def _figures(manifest: Manifest, result: CheckResult, settings: ExportSettings) -> AccuracyFigures:
    return AccuracyFigures(
        format=FORMAT,
        model=manifest.name,
        fingerprint=manifest.source.fingerprint,
        reference=result.reference.kind,
        notes=result.reference.notes,
        texts=result.texts,
        calibration=manifest.export.calibration,
        seed=settings.seed,
        max_loss=settings.max_loss,
        allow_loss=settings.allow_loss,
        tools=manifest.export.tools,
        variants=dict(result.variants),
    )


def _log(result: CheckResult) -> None:
    for name, variant in result.variants.items():
        for task, accuracy in variant.tasks.items():
            check = accuracy.check
            if check.ranking_loss is None:
                reason = f"{check.texts} texts are too few to rank"
                cosines = check.single or check.multi
                if cosines is not None:
                    reason += f"; cosine to {check.reference} {cosines.mean:.5f}"
            else:
                loss = f"{check.ranking_loss:.2f} points of nDCG@10"
                reason = f"loses {loss} compared with {check.reference}, the budget is {check.budget:g}"
            level = logging.INFO if check.outcome == "within budget" else logging.WARNING
            logger.log(level, "%s, %s: %s; %s", name, task, check.outcome, reason)
