"""Model that an adapter was trained on, as its adapter_config.json names it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.lora_config import CONFIG_FILE

# Packages whose models the families are.
KNOWN_PACKAGES = ("transformers.", "sentence_transformers.")


class _AutoMapping(msgspec.Struct, frozen=True):
    """The class of the model, which PEFT records if an adapter has no task_type."""

    base_model_class: str | None = None
    parent_library: str | None = None


class _Fields(msgspec.Struct, frozen=True):
    auto_mapping: _AutoMapping | None = None


def check_adapted_model(folder: Path) -> None:
    """Refuse the adapter in a folder if its model is a class of other code, such as a bidirectional Llama.

    Raises:
        CheckpointError: see above, or adapter_config.json is damaged.
    """
    path = folder / CONFIG_FILE
    mapping = read_json(path, _Fields).auto_mapping
    library = None if mapping is None else mapping.parent_library
    if mapping is None or not library or library.startswith(KNOWN_PACKAGES):
        return
    raise CheckpointError(
        f"{path}: auto_mapping has {mapping.base_model_class} of {library}, a class of other code that may compute "
        "otherwise than the checkpoint's; if it only wraps the checkpoint, set auto_mapping to null"
    )
