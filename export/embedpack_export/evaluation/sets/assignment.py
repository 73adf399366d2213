"""Which sets are measured with which task of a pack, and by which of its variants."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedpack.errors import InputError, unknown
from embedpack.pack.manifest import Manifest
from embedpack_export.evaluation.sets.data import AnySet
from embedpack_export.evaluation.sets.discovery import task_of

logger = logging.getLogger("embedpack")


@dataclass(frozen=True)
class Assignment:
    """The sets of each task, in the order of the pack's tasks, and those that are left out with the reason."""

    by_task: Mapping[str, Sequence[AnySet]]
    left_out: Mapping[str, str]


def assign(sets: Sequence[AnySet], manifest: Manifest, tasks: Sequence[str], variants: Sequence[str]) -> Assignment:
    """Decide which task each set is measured with.

    Args:
        sets: what there is.
        manifest: of the pack.
        tasks: measured with every set; empty: every set with the task of its kind.
        variants: that are measured; empty: all.

    Raises:
        InputError: the pack has no such task or variant, or no set is left.
    """
    for task in tasks:
        if task not in manifest.tasks:
            raise InputError(unknown("task", task, manifest.tasks))
    found: dict[str, list[AnySet]] = {task: [] for task in manifest.tasks}
    left_out: dict[str, str] = {}
    for item in sets:
        wanted, why = _tasks_of(item, manifest, tasks)
        measured = [task for task in wanted if variants_of(manifest, task, variants)]
        if not measured:
            left_out[item.name] = why or f"no variant that is measured is of the task {', '.join(wanted)}"
        for task in measured:
            found[task].append(item)
    for name, why in left_out.items():
        logger.warning("%s is left out: %s", name, why)
    chosen = {task: items for task, items in found.items() if items}
    if not chosen:
        raise InputError("no set is left to measure: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()))
    return Assignment(chosen, left_out)


def _tasks_of(item: AnySet, manifest: Manifest, named: Sequence[str]) -> tuple[Sequence[str], str]:
    """Tasks that a set is measured with, and why there are none."""
    if item.kind == "visual" and manifest.image is None:
        return (), "its documents are images, and the pack reads texts only"
    own = task_of(item.kind, list(manifest.tasks))
    if own is None and not named:
        return (), f"none of the pack's tasks is known to be for sets of the kind {item.kind}; name one with --task"
    return named or [task for task in manifest.tasks if task == own], ""


def variants_of(manifest: Manifest, task: str, named: Sequence[str]) -> list[str]:
    """Variants of a task, those with switchable adapters too; `named` says which of all of the pack, empty: all.

    Raises:
        InputError: the pack has no variant of a name.
    """
    for variant in named:
        if variant not in manifest.variants:
            raise InputError(unknown("variant", variant, manifest.variants))
    return [
        name
        for name, variant in manifest.variants.items()
        if variant.task in (task, None) and (not named or name in named)
    ]
