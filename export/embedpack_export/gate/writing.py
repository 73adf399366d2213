"""The end of an export: check the finished pack, write what was found into it, or refuse it."""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path

import msgspec

from embedpack.pack.folder import describe_file, write_manifest
from embedpack.pack.manifest import Manifest, Report
from embedpack_export.gate.budget import Budget
from embedpack_export.gate.check import Checked, check_pack
from embedpack_export.gate.figures import FIGURES_FILE, FORMAT, PAGE_FILE, Figures
from embedpack_export.gate.page import accuracy_page
from embedpack_export.html.page import html
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.protocol import Reference

logger = logging.getLogger("embedpack")


def report_accuracy(
    folder: Path, manifest: Manifest, plan: ExportPlan, reference: Reference, settings: ExportSettings
) -> Manifest:
    """Check a sealed pack and write its report; returns the manifest that names both.

    Raises:
        AccuracyError: a variant is over its budget, or its vectors are those of another model.
        CheckpointError: the reference cannot be computed.
    """
    checked = check_pack(folder, plan, reference, Budget.of(settings))
    checked.raise_failures(settings.output)
    _log(checked)
    tools = manifest.export.tools | {name: importlib.metadata.version(name) for name in reference.packages}
    manifest = msgspec.structs.replace(
        manifest,
        variants={
            name: msgspec.structs.replace(
                variant, checks={task: found.check for task, found in checked.variants[name].tasks.items()}
            )
            for name, variant in manifest.variants.items()
        },
        export=msgspec.structs.replace(manifest.export, tools=tools),
        report=Report(figures=FIGURES_FILE, page=PAGE_FILE),
    )
    figures = _figures(manifest, checked, reference, settings)
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


def _figures(manifest: Manifest, checked: Checked, reference: Reference, settings: ExportSettings) -> Figures:
    return Figures(
        format=FORMAT,
        model=manifest.name,
        fingerprint=manifest.source.fingerprint,
        reference=reference.kind,
        texts=checked.texts,
        calibration=manifest.export.calibration,
        seed=settings.seed,
        max_loss=settings.max_loss,
        allow_loss=settings.allow_loss,
        tools=manifest.export.tools,
        variants=dict(checked.variants),
    )


def _log(checked: Checked) -> None:
    for name, variant in checked.variants.items():
        for task, found in variant.tasks.items():
            check = found.check
            if check.ranking_loss is None:
                logger.warning(
                    "%s, %s: not judged, %d texts are too few to rank; cosine to %s %.5f",
                    name,
                    task,
                    check.texts,
                    check.reference,
                    check.cosine_mean,
                )
                continue
            logger.log(
                logging.WARNING if check.verdict == "allowed" else logging.INFO,
                "%s, %s: %s; loses %.2f points of nDCG@10 to %s, at most %g wanted",
                name,
                task,
                check.verdict,
                check.ranking_loss,
                check.reference,
                check.budget,
            )
