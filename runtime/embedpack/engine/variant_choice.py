"""Choice of one of a pack's variants."""

from __future__ import annotations

from dataclasses import dataclass

from embedpack.errors import InputError, unknown
from embedpack.pack.folder import Pack


@dataclass(frozen=True)
class VariantQuery:
    """Options of `Embedder` that choose a variant; None: left out. `variant` replaces the other three."""

    task: str | None = None
    weights: str | None = None
    adapters: str | None = None
    variant: str | None = None


def choose_variant(pack: Pack, query: VariantQuery) -> str:
    """Name of the variant that a query describes; InputError if no variant or several fit."""
    variants = pack.manifest.variants
    if query.variant is not None:
        if (query.task, query.weights, query.adapters) != (None, None, None):
            raise InputError("pass either variant, or task, weights and adapters")
        if not isinstance(query.variant, str) or query.variant not in variants:
            raise InputError(unknown("variant", query.variant, variants))
        return query.variant
    mode, task = _choose_mode_and_task(pack, query)
    by_weights: dict[str, str] = {
        variant.weights: name
        for name, variant in variants.items()
        if variant.adapters == mode and variant.task in (task, None)
    }
    weights = query.weights
    if weights is None:
        weights = "int8" if "int8" in by_weights else next(iter(by_weights))
    if not isinstance(weights, str) or weights not in by_weights:
        raise InputError(f"{unknown('weights', weights, by_weights)} (task {task!r})")
    return by_weights[weights]


def _choose_mode_and_task(pack: Pack, query: VariantQuery) -> tuple[str, str | None]:
    """Adapter mode and task of the variant; task None: chosen call by call."""
    tasks, task = tuple(pack.manifest.tasks), query.task
    if task is not None and task not in tasks:
        raise InputError(unknown("task", task, tasks))
    modes = {
        variant.adapters for variant in pack.manifest.variants.values() if task is None or variant.task in (task, None)
    }
    mode: str = ("merged" if "merged" in modes else "switchable") if query.adapters is None else query.adapters
    if mode not in modes:
        raise InputError(unknown("adapters", mode, sorted(modes)))
    if task is None and mode == "merged":
        if len(tasks) > 1:
            raise InputError(f"this pack has several tasks; pass task=, one of: {', '.join(tasks)}")
        task = tasks[0]
    return mode, task
