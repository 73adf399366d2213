"""Rotary positions in config.json: `rope_theta` and `rope_scaling`, or `rope_parameters` of transformers 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError
from embedpack_export.sources.key_rules import shown

ROPE_TYPES = ("default", "dynamic", "linear", "llama3", "yarn")
WITH_ORIGINAL_LENGTH = ("llama3", "yarn")
# Keys of a rope_type of default: neither scales.
PLAIN = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}
ORIGINAL_LENGTH = "original_max_position_embeddings"
REASONS = {"longrope": "its frequencies depend on the longest text of a batch"}


def is_default_rope(value: Any) -> bool:
    """True for rotary positions without scaling; `rope_theta` is read on its own."""
    return isinstance(value, dict) and all(
        key == "rope_theta" or (key in PLAIN and found in (PLAIN[key], None)) for key, found in value.items()
    )


def rope_problem(value: Any) -> str | None:
    """Reason to refuse `rope_scaling` or `rope_parameters`; the values of a scaling are checked with the graph."""
    if value is None:
        return None
    if not isinstance(value, dict):
        return "it is an object or null"
    names = {key: value[key] for key in ("rope_type", "type") if value.get(key) is not None}
    if len(set(map(str, names.values()))) > 1:
        return "rope_type and type differ; remove the wrong one"
    kind = _rope_type(value)
    if kind not in ROPE_TYPES:
        reason = f" ({REASONS[kind]})" if kind in REASONS else ""
        return f"rope_type {kind!r} is not supported{reason}; supported: {', '.join(ROPE_TYPES)}"
    if value.get("partial_rotary_factor", 1) not in (1, None):
        return "a partial_rotary_factor other than 1 is not supported; export a checkpoint without it"
    if kind == "default" and not is_default_rope(value):
        return "a rope_type of default has no other key than rope_theta; remove the others, or name their rope_type"
    return None


def with_rope_scaling(path: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration in one spelling: `rope_theta`, and a `rope_scaling` with `rope_type`, null without scaling.

    Raises:
        CheckpointError: two spellings of a value contradict each other.
    """
    objects = [config[name] for name in ("rope_scaling", "rope_parameters") if isinstance(config.get(name), dict)]
    if not objects:
        return config
    thetas = [found.get("rope_theta") for found in (config, *objects)]
    scaling = _only(path, "rope_scaling", [_scaling(found) for found in objects])
    if scaling and scaling.get("rope_type") in WITH_ORIGINAL_LENGTH:
        lengths = [found.get(ORIGINAL_LENGTH) for found in (config, *objects)]
        length = _only(path, ORIGINAL_LENGTH, lengths) or config.get("max_position_embeddings")
        scaling = {**scaling, ORIGINAL_LENGTH: length}
    theta = _only(path, "rope_theta", thetas)
    return {**config, "rope_scaling": scaling, **({} if theta is None else {"rope_theta": theta})}


def _rope_type(value: Mapping[str, Any]) -> Any:
    return value.get("rope_type") or value.get("type") or "default"


def _scaling(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """An object of either spelling without the values that stand elsewhere too; None: it scales nothing."""
    if is_default_rope(value):
        return None
    kind = _rope_type(value)
    elsewhere = {"type", "rope_theta", "partial_rotary_factor"}
    if kind in WITH_ORIGINAL_LENGTH:
        elsewhere.add(ORIGINAL_LENGTH)
    return {key: found for key, found in value.items() if key not in elsewhere} | {"rope_type": kind}


def _only(path: Path, key: str, values: Sequence[Any]) -> Any:
    """The value that is not null; None: there is none."""
    found = [value for value in values if value is not None]
    for other in found[1:]:
        if other != found[0]:
            raise CheckpointError(f"{path}: {key} is {shown(found[0])} and {shown(other)}; remove the wrong one")
    return next(iter(found), None)
