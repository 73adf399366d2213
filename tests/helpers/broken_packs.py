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
    "type": "qwen2_vl",
    "hidden": 32,
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
    "gives": "tokens",
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


def with_multi(**head: Any) -> Change:
    """A change of the manifest that declares multi-vectors, coded like its single vectors; `head` replaces fields."""

    def apply(manifest: dict[str, Any]) -> None:
        manifest["multi"] = {"dimensions": 16, "truncate_dims": [8, 16], **head}
        space = manifest["spaces"]["default"]
        space["multi"] = space["single"]
        for variant in manifest["variants"].values():
            variant["accuracy"]["multi"] = {"tokens": 900, "mean": 0.999, "p1": 0.99}

    return apply


def without_single(manifest: dict[str, Any]) -> None:
    """Take the head of single vectors out of the manifest, with its codes and figures."""
    manifest["single"] = None
    for space in manifest["spaces"].values():
        space["single"] = None
    for variant in manifest["variants"].values():
        variant["accuracy"]["single"] = None


def changes(*parts: Change) -> Change:
    """Several changes of the manifest, one after the other."""

    def apply(manifest: dict[str, Any]) -> None:
        for part in parts:
            part(manifest)

    return apply


def prompt(**fields: Any) -> Change:
    """A change of the manifest that gives the prompt `query` other fields."""
    return lambda manifest: manifest["tasks"]["default"]["prompts"]["query"].update(fields)


# Scores that fit the tiny pack as a reranker.
PAIRS: dict[str, Any] = {
    "type": "pair",
    "parts": [[2], {"slot": "query"}, [3, 3], {"slot": "document"}, [3]],
    "instruction": None,
    "max_tokens": 32,
    "max_query_tokens": 16,
    "max_document_tokens": None,
    "cut": "document",
    "overlap": None,
    "token_types": False,
    "offset": 0.0,
    "activation": "sigmoid",
}
LISTS: dict[str, Any] = {
    "type": "list",
    "before": ["rank ", {"slot": "count"}, " passages for ", {"slot": "query"}],
    "document": [{"slot": "index"}, ": ", {"slot": "document"}, [4]],
    "between": " ",
    "after": [{"slot": "query"}, [5]],
    "document_mark": 4,
    "query_mark": 5,
    "stripped": ["<mark>"],
    "max_query_tokens": 8,
    "max_document_tokens": 16,
    "max_tokens": 32,
    "max_documents": 125,
}
MAXSIM: dict[str, Any] = {
    "type": "maxsim",
    "task": "default",
    "query_prompt": "query",
    "document_prompt": "passage",
    "per_query_token": False,
}


AGREEMENT = {
    "queries": 4,
    "pairs": 16,
    "largest_difference": 0.01,
    "relative_difference": 0.02,
    "kendall": 0.98,
}


def reranker(score: dict[str, Any], **fields: Any) -> Change:
    """A change of the manifest that makes the pack a reranker with these scores; `fields` replace some of theirs."""

    def apply(manifest: dict[str, Any]) -> None:
        without_single(manifest)
        manifest.update(kind="reranker", spaces={}, score={**score, **fields})
        manifest["tasks"]["default"]["space"] = None
        for variant in manifest["variants"].values():
            variant["accuracy"]["score"] = AGREEMENT

    return apply


def adapted(manifest: dict[str, Any]) -> None:
    """Give the task of the pack an adapter."""
    manifest["tasks"]["default"]["adapter"] = {"modules": 7, "relative_change": 0.5}


def switchable(**fields: Any) -> Change:
    """A change of the manifest that makes the int8 variant switchable, but for what is named."""
    found = {"task": None, "adapters": "switchable", "adapter_files": {"default": "LICENSE"}, **fields}
    return changes(adapted, lambda manifest: manifest["variants"]["default-int8"].update(found))
