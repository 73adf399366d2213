"""Assignment of evaluation sets to the tasks and variants of a pack."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedpack.errors import InputError, OptionError, unknown
from embedpack.pack.manifest import Manifest
from embedpack_export.evaluation.sets.data import AnySet, Kind

# Tasks that sets of a kind are measured with, in order of preference.
TASKS_BY_KIND: Mapping[Kind, Sequence[str]] = {
    "code": ("code", "retrieval"),
    "sts": ("text-matching", "retrieval"),
    "retrieval": ("retrieval",),
    "visual": ("retrieval",),
}

logger = logging.getLogger("embedpack")


@dataclass(frozen=True)
class Assignment:
    """Evaluation sets by task."""

    by_task: Mapping[str, Sequence[AnySet]]  # sets of each task, in the order of the pack's tasks
    skipped: Mapping[str, str]  # sets that are not measured, with the reason


def assign(sets: Sequence[AnySet], manifest: Manifest, tasks: Sequence[str], variants: Sequence[str]) -> Assignment:
    """Choose the tasks that each set is measured with.

    Without `tasks` each set is measured with the task of its kind; without `variants`, all variants are measured.

    Raises:
        InputError: the pack has no such task or variant, or no set is left.
    """
    for task in tasks:
        if task not in manifest.tasks:
            raise OptionError(unknown("task", task, manifest.tasks))
    by_task: dict[str, list[AnySet]] = {task: [] for task in manifest.tasks}
    skipped: dict[str, str] = {}
    for evaluation_set in sets:
        candidates, reason = _tasks_of(evaluation_set, manifest, tasks)
        measured = [task for task in candidates if variants_of(manifest, task, variants)]
        if not measured:
            skipped[evaluation_set.name] = (
                reason or f"none of the measured variants has the task {', '.join(candidates)}"
            )
        for task in measured:
            by_task[task].append(evaluation_set)
    for name, reason in skipped.items():
        logger.warning("skipped %s: %s", name, reason)
    assigned = {task: chosen for task, chosen in by_task.items() if chosen}
    if not assigned:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise InputError(f"no set is left to measure: {reasons}")
    return Assignment(assigned, skipped)


def _tasks_of(evaluation_set: AnySet, manifest: Manifest, named: Sequence[str]) -> tuple[Sequence[str], str]:
    """Return the tasks that a set is measured with, and the reason if there is none."""
    if evaluation_set.kind == "visual" and manifest.image is None:
        return (), "its documents are images, and the pack reads texts only"
    own = task_of(evaluation_set.kind, list(manifest.tasks))
    if own is None and not named:
        return (
            (),
            f"none of the pack's tasks is known to be for sets of the kind {evaluation_set.kind}; name one with --task",
        )
    return named or [task for task in manifest.tasks if task == own], ""


def task_of(kind: Kind, tasks: Sequence[str]) -> str | None:
    """Return the task of a pack that sets of a kind are measured with; None if no task is known to fit."""
    for task in TASKS_BY_KIND[kind]:
        if task in tasks:
            return task
    return tasks[0] if len(tasks) == 1 else None


def variants_of(manifest: Manifest, task: str, named: Sequence[str]) -> list[str]:
    """Return the variants of a task, of all or of the named ones; raises OptionError if there is no such variant."""
    for variant in named:
        if variant not in manifest.variants:
            raise OptionError(unknown("variant", variant, manifest.variants))
    return [
        name
        for name, variant in manifest.variants.items()
        if variant.task in (task, None) and (not named or name in named)
    ]
