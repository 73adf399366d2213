"""Choice of one of a pack's variants."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack.errors import OptionError, unknown
from embedpack.pack.folder import Pack
from embedpack.pack.variants import Device


def choose_variant(
    pack: Pack, variant: str | None, task: str | None, weights: str | None, adapters: str | None, device: Device = "cpu"
) -> str:
    """Name of the variant that the options of `Embedder` describe, None if left out; OptionError if not exactly one."""
    variants = pack.manifest.variants
    if variant is not None:
        if (task, weights, adapters) != (None, None, None):
            raise OptionError("pass either variant, or task, weights and adapters")
        if not isinstance(variant, str) or variant not in variants:
            raise OptionError(unknown("variant", variant, variants))
        return variant
    mode, task = _choose_mode_and_task(pack, task, adapters)
    fitting = {name: each for name, each in variants.items() if each.adapters == mode and each.task in (task, None)}
    by_weights: dict[str, str] = {each.weights: name for name, each in fitting.items()}
    if weights is None:
        weights = _default_weights(pack, [each.weights for each in fitting.values() if each.device == device], device)
    if not isinstance(weights, str) or weights not in by_weights:
        raise OptionError(f"{unknown('weights', weights, by_weights)} (task {task!r})")
    return by_weights[weights]


def _default_weights(pack: Pack, possible: Sequence[str], device: Device) -> str:
    """Weights format of a device where none is named."""
    if not possible and device == "cuda":
        raise OptionError(
            f"{pack.folder}: has no variant for GPUs; pass device='cpu', or export it with --weights fp16"
        )
    if not possible:
        raise OptionError(
            f"{pack.folder}: its variants are for GPUs; pass weights='fp16' to compute with one on the CPU, slowly"
        )
    return "int8" if "int8" in possible else possible[0]


def _choose_mode_and_task(pack: Pack, task: str | None, adapters: str | None) -> tuple[str, str | None]:
    """Adapter mode and task of the variant; task None: chosen call by call."""
    tasks = tuple(pack.manifest.tasks)
    task = pack.manifest.unnamed_task if task is None else task
    if task is not None and task not in tasks:
        raise OptionError(unknown("task", task, tasks))
    variants = pack.manifest.variants.values()
    modes = {variant.adapters for variant in variants if task is None or variant.task in (task, None)}
    mode: str = ("merged" if "merged" in modes else "switchable") if adapters is None else adapters
    if mode not in modes:
        raise OptionError(unknown("adapters", mode, sorted(modes)))
    if task is None and mode == "merged":
        raise OptionError(f"this pack has several tasks; pass task=, one of: {', '.join(tasks)}")
    return mode, task
