"""Choice of the device that a variant runs on."""

from __future__ import annotations

import logging
import os
from typing import Literal, get_args

from embedpack.errors import OptionError, unknown
from embedpack.host.onnxruntime import ort
from embedpack.pack.folder import Pack
from embedpack.pack.variants import Device

logger = logging.getLogger("embedpack")

DeviceOption = Literal["cpu", "cuda", "auto"]
CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"
# Options of onnxruntime's products on GPUs; its first bit adds up float16 products in float16.
GEMM_OPTIONS, HALF_SUMS = "ORT_CUDA_GEMM_OPTIONS", 1


def choose_device(pack: Pack, device: str, weights: str | None, variant: str | None) -> Device:
    """Device of the options of `Embedder`; "auto" is a GPU if there is one and the pack has a variant for it.

    Raises:
        OptionError: an unknown device, or a GPU that cannot be used.
    """
    if device == "cpu":
        return "cpu"
    if device not in get_args(DeviceOption):
        raise OptionError(unknown("device", device, get_args(DeviceOption)))
    obstacle = _obstacle()
    if device == "cuda":
        if obstacle is not None:
            raise OptionError(f"device 'cuda' cannot be used: {obstacle}")
        return "cuda"
    obstacle = _obstacle_of_pack(pack, weights, variant) or obstacle
    chosen: Device = "cuda" if obstacle is None else "cpu"
    logger.info("%s: device %s, chosen by auto%s", pack.folder, chosen, "" if obstacle is None else f": {obstacle}")
    return chosen


def _obstacle() -> str | None:
    """Reason why no GPU can be used here, with the remedy; None: one can."""
    from embedpack.host.gpu import free_memory

    providers = ort.get_available_providers()
    if CUDA_PROVIDER not in providers:
        return (
            f"onnxruntime {ort.__version__} has no {CUDA_PROVIDER}, only {', '.join(providers)}; run: "
            "pip install 'embedpack[gpu]'"
        )
    value = os.environ.get(GEMM_OPTIONS, "0")
    if not value.isdigit() or int(value) & HALF_SUMS:
        return f"{GEMM_OPTIONS}={value} makes products add up in float16; unset it"
    if free_memory() is None:
        return "the driver finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
    return None


def _obstacle_of_pack(pack: Pack, weights: str | None, variant: str | None) -> str | None:
    """Reason why none of the variants that the options allow is for GPUs; None: one is."""
    possible = {
        name
        for name, each in pack.manifest.variants.items()
        if each.device == "cuda" and weights in (None, each.weights) and variant in (None, name)
    }
    return None if possible else "no variant that was asked for is for GPUs"
