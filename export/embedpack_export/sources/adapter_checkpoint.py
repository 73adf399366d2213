"""Folders that hold an adapter alone, as a SentenceTransformer with an adapter saves itself: the base is elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.sources.checkpoint import INDEX, read_json
from embedpack_export.sources.files import exists
from embedpack_export.sources.lora_config import CONFIG_FILE

logger = logging.getLogger("embedpack")


@dataclass(frozen=True)
class BaseAndAdapters:
    """Folders of a backbone and of its adapters."""

    base: Path  # folder of the backbone
    adapters: Mapping[str, Path]  # folder of the adapter of each task


class _Base(msgspec.Struct, frozen=True):
    """The field of adapter_config.json that names the base."""

    base_model_name_or_path: str | None = None


def find_base(folder: Path, adapters: Mapping[str, Path], task: str) -> BaseAndAdapters:
    """Split a folder that holds an adapter alone into its base and the adapter of `task`; leave all others.

    Raises:
        CheckpointError: the base is no folder on this machine, or the folder holds weights and an adapter.
    """
    config = folder / CONFIG_FILE
    if not exists(config) or any(adapter.resolve() == folder.resolve() for adapter in adapters.values()):
        return BaseAndAdapters(folder, adapters)
    if exists(folder / "model.safetensors") or exists(folder / INDEX):
        raise CheckpointError(
            f"{folder}: holds the weights of a model and {CONFIG_FILE}; pass --adapter {task}={folder} to merge the "
            f"adapter, or remove {CONFIG_FILE}"
        )
    if adapters:
        raise CheckpointError(
            f"{folder}: holds an adapter, not a model; pass the folder of its base, and --adapter for each adapter"
        )
    name = read_json(config, _Base).base_model_name_or_path
    base = Path(name or "")
    if not name or not base.is_dir():
        raise CheckpointError(
            f"{folder}: holds an adapter alone; its base_model_name_or_path is {name!r}, which is no folder of a model "
            f"here: download that model, and export its folder with --adapter {task}={folder}"
        )
    logger.info("%s: an adapter of the model in %s", folder, base)
    return BaseAndAdapters(base, {task: folder})
