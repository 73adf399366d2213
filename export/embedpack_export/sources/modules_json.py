"""modules.json of sentence-transformers: the modules of a model and their folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from embedpack.errors import CheckpointError, unknown
from embedpack_export.sources.checkpoint import read_json
from embedpack_export.sources.files import exists
from embedpack_export.sources.key_rules import check_keys
from embedpack_export.sources.sentence_transformers_keys import MODULES

# Modules of sentence-transformers that the graphs' heads cover; Dropout does nothing outside training.
KNOWN_MODULES = (
    *("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout", "MultiVectorMask", "LogitScore"),
)
# Modules of other libraries that compute the same.
SAME_MODULES = ("pylate.models.Dense.Dense",)
# Modules with weights of their own.
LAYERS = ("Dense", "LayerNorm")
ORDER = re.compile("Transformer,(Pooling,(Dense,|LayerNorm,)*)?(Normalize,)?")
# Order of a model for multi-vectors.
TOKEN_ORDER = re.compile("Transformer,(Dense,)+(MultiVectorMask,)?(Normalize,)?")
# Order of a language model that answers about a pair with one of two tokens.
LOGIT_ORDER = re.compile("Transformer,LogitScore,")


class Module(msgspec.Struct, frozen=True):
    """An entry of modules.json."""

    type: str
    path: str

    @property
    def kind(self) -> str:
        """Name of the class."""
        return self.type.rsplit(".", 1)[-1]


def read_modules(path: Path, own_modules: Collection[str]) -> list[Module]:
    """Read modules.json, or return [] if it is missing; `own_modules` are module types of the family itself.

    Raises:
        CheckpointError: the file is damaged, or has an unsupported module or an unsupported order of modules.
    """
    if not exists(path):
        return []
    modules = _entries(path)
    for module in modules:
        if module.kind not in KNOWN_MODULES:
            raise CheckpointError(f"{path}: {unknown('module', module.kind, KNOWN_MODULES)}")
        known = module.type.startswith("sentence_transformers.") or module.type in SAME_MODULES
        if not known and module.type not in own_modules:
            raise CheckpointError(
                f"{path}: type is {module.type!r}, code of the checkpoint that is not run; if sentence-transformers' "
                f"module does the same, make it sentence_transformers.models.{module.kind}"
            )
    kept = [module for module in modules if module.kind != "Dropout"]
    if not (ORDER.fullmatch(_order(kept)) or gives_multi_vectors(kept) or gives_token_logits(kept)):
        raise CheckpointError(
            f"{path}: modules in the order {', '.join(module.kind for module in kept)}; supported: Transformer, "
            "Pooling, any number of Dense and LayerNorm, Normalize; or for multi-vectors Transformer, Dense, "
            "MultiVectorMask, Normalize; or for scores Transformer, LogitScore"
        )
    return kept


def gives_multi_vectors(modules: Sequence[Module]) -> bool:
    """True if these are the modules, in their order, of a model for multi-vectors."""
    return TOKEN_ORDER.fullmatch(_order(modules)) is not None


def gives_token_logits(modules: Sequence[Module]) -> bool:
    """True if these are the modules, in their order, of a language model whose logits of two tokens are a score."""
    return LOGIT_ORDER.fullmatch(_order(modules)) is not None


def _order(modules: Sequence[Module]) -> str:
    return "".join(f"{module.kind}," for module in modules)


def transformer_folder(folder: Path) -> Path:
    """Folder of the Transformer module of a checkpoint: the folder itself, or e.g. 0_Transformer in it.

    Raises:
        CheckpointError: modules.json is damaged.
    """
    path = folder / "modules.json"
    modules = _entries(path) if exists(path) else []
    places = (folder / module.path for module in modules if module.kind == "Transformer")
    return next((place for place in places if exists(place / "config.json")), folder)


def module_folders(path: Path) -> list[str]:
    """Folders that modules.json names, next to it and other than its own.

    Raises:
        CheckpointError: the file is damaged, or names a folder elsewhere.
    """
    return sorted({module.path for module in _entries(path) if Path(module.path).parts})


def _entries(path: Path) -> list[Module]:
    modules = read_json(path, list[Module])
    for number, entry in enumerate(read_json(path, list[dict[str, Any]])):
        check_keys(path, entry, MODULES, f"[{number}]")
    for module in modules:
        if not module.path.isprintable() or Path(module.path).is_absolute() or ".." in Path(module.path).parts:
            raise CheckpointError(f"{path}: {module.path!r} is no path, or leads outside of the folder; correct it")
        if len(Path(module.path).parts) > 1:
            raise CheckpointError(
                f"{path}: {module.path!r} is a folder in a folder, which sentence-transformers does not write; put it "
                "next to modules.json"
            )
    places = [module.path for module in modules if module.kind in LAYERS]
    if len(set(places)) < len(places) or "" in places:
        raise CheckpointError(f"{path}: each Dense and LayerNorm needs a folder of its own; correct the paths")
    return modules
