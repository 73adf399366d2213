"""Model families: one file each, with one object `FAMILY`; other files hold what several of them share.

A new family is one new file here, and an entry of `reference/torch/by_family.py` if transformers' `AutoModel` does not
load it (CONTRIBUTING.md, "Add a family").
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping

from embedpack.errors import CheckpointError, unknown
from embedpack_export.families.model import Family
from embedpack_export.sources.checkpoint import Checkpoint
from embedpack_export.sources.key_rules import shown


@functools.cache
def families() -> Mapping[str, Family]:
    """All families by name, in the order of their names."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    found = (module.FAMILY for module in modules if hasattr(module, "FAMILY"))
    return {family.name: family for family in sorted(found, key=lambda family: family.name)}


def find_family(checkpoint: Checkpoint) -> Family:
    """Find the one family that claims a checkpoint.

    Raises:
        CheckpointError: no family claims it, or several do.
    """
    claiming = [family for family in families().values() if family.claims(checkpoint)]
    if len(claiming) == 1:
        return claiming[0]
    path = checkpoint.folder / "config.json"
    if claiming:
        names = " and ".join(family.name for family in claiming)
        raise CheckpointError(f"{path}: the families {names} both claim this checkpoint; report it")
    model_type, architectures = checkpoint.config.get("model_type"), shown(checkpoint.config.get("architectures"))
    if isinstance(model_type, str):
        raise CheckpointError(
            f"{path}: architectures is {architectures}; {unknown('model_type', model_type, families())}"
        )
    stated = "no model_type" if model_type is None else f"model_type is {shown(model_type)}"
    raise CheckpointError(
        f"{path}: {stated}, and architectures is {architectures}; known families: {', '.join(families())}"
    )
