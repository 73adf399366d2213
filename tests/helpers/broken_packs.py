"""Changes of the tiny pack's manifest, and the message of the PackError that they cause."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedpack import PackError
from embedpack.pack.folder import read_pack

Edit = Callable[[Callable[[dict[str, Any]], object]], None]
ReplaceFile = Callable[[str, bytes], None]
Change = Callable[[dict[str, Any]], object]


def refusal(pack: Path, action: Callable[[], object]) -> str:
    """The message of the PackError that an action raises, with PACK for the folder."""
    with pytest.raises(PackError) as caught:
        action()
    return str(caught.value).replace(str(pack), "PACK")


def check_all_files(pack: Path) -> list[str]:
    return list(read_pack(pack).check_files())


def put(*path_and_value: Any) -> Change:
    """A change of the manifest: `put("text", "max_tokens", 5)` sets `$.text.max_tokens`."""
    *path, last, value = path_and_value
    return lambda manifest: functools.reduce(lambda part, key: part[key], path, manifest).update({last: value})


def drop(*path: str) -> Change:
    """A change of the manifest that removes the value at a path."""
    *parents, last = path
    return lambda manifest: functools.reduce(lambda part, key: part[key], parents, manifest).pop(last)


def rename_file(old: str, new: str) -> Change:
    return lambda manifest: manifest["files"].update({new: manifest["files"].pop(old)})


# An image input that fits the tiny pack, whose vocabulary has 252 tokens.
IMAGE = {
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "window_size": 4,
    "min_pixels": 784,
    "max_pixels": 7840,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "tokens_before": [2, 9],
    "token": 10,
    "tokens_after": [9, 3],
    "pooled_before": 1,
    "pooled_after": 2,
}
VISION: dict[str, Any] = {
    "graph": "default-fp32.onnx",
    "external_data": [],
    "operators": [],
}


def with_images(image: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> Change:
    """A change of the manifest that makes the pack read images: those of IMAGE, but for what is named."""

    def apply(manifest: dict[str, Any]) -> None:
        manifest["image"] = {**IMAGE, **(image or {})}
        manifest["vision"] = {name: {**VISION, **(vision or {})} for name in ("fp32", "int8", "int4")}

    return apply


def with_tokens(**codes: Any) -> Change:
    """A change of the manifest that declares multi-vectors, with the calibration of single vectors but for `codes`."""

    def apply(manifest: dict[str, Any]) -> None:
        manifest["multi_vector_dimensions"] = 16
        task = manifest["tasks"]["default"]
        task.update(token_int8_scale=0.01, token_codes={**task["codes"], **codes})

    return apply


def switchable(**fields: Any) -> Change:
    """A change of the manifest that makes the int8 variant switchable, but for what is named."""
    found = {"task": None, "adapters": "switchable", "adapter_files": {"default": "LICENSE"}, **fields}
    return lambda manifest: manifest["variants"]["default-int8"].update(found)
