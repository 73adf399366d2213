"""Choice of one of a pack's variants."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from embedpack.errors import OptionError, unknown
from embedpack.pack.folder import Pack
from embedpack.pack.strict import WeightsFormat
from embedpack.pack.variants import Device

logger = logging.getLogger("embedpack")

DEFAULT_WEIGHTS: Mapping[Device, WeightsFormat] = {"cpu": "int8", "cuda": "fp16"}
EXPORT_FOR_GPUS = "export it with --weights fp16, or --weights int4 --device cuda"


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
        _check_device(pack, variant, device)
        return variant
    mode, task = _choose_mode_and_task(pack, task, adapters)
    fitting = {name: each for name, each in variants.items() if each.adapters == mode and each.task in (task, None)}
    by_weights: dict[str, str] = {each.weights: name for name, each in fitting.items()}
    if weights is None:
        weights = _default_weights(pack, [each.weights for each in fitting.values() if each.device == device], device)
    if not isinstance(weights, str) or weights not in by_weights:
        raise OptionError(f"{unknown('weights', weights, by_weights)} (task {task!r})")
    name = by_weights[weights]
    _check_device(pack, name, device)
    if variants[name].device != device == "cpu":
        logger.warning("%s: %s is made for GPUs, and slow on a CPU; pass device='cuda'", pack.folder, name)
    return name


def _check_device(pack: Pack, name: str, device: Device) -> None:
    """Raise OptionError for a quantized graph of CPUs on a GPU, whose kernels are others; float32 is exact on both."""
    variant = pack.manifest.variants[name]
    if device == "cuda" and variant.device == "cpu" and variant.weights != "fp32":
        raise OptionError(
            f"{pack.folder}: {name} has {variant.weights} weights for CPUs; pass device='cpu', or {EXPORT_FOR_GPUS}"
        )


def _default_weights(pack: Pack, possible: Sequence[str], device: Device) -> str:
    """Weights format of a device where none is named."""
    if not possible and device == "cuda":
        raise OptionError(f"{pack.folder}: has no variant for GPUs; pass device='cpu', or {EXPORT_FOR_GPUS}")
    if not possible:
        raise OptionError(
            f"{pack.folder}: its variants are for GPUs; pass weights= to compute with one on the CPU, slowly"
        )
    first = DEFAULT_WEIGHTS[device]
    return first if first in possible else possible[0]


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
