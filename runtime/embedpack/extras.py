"""Optional parts of embedpack and the packages that each needs; all that is missing is named at once."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping

from embedpack.errors import MissingExtraError

# Packages by the names of their imports.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "export": ("onnx", "onnx_ir"),
    "reference": ("torch", "transformers", "peft"),
    "hub": ("huggingface_hub",),
    "bench": ("ir_measures", "scipy"),
    "mteb": ("mteb",),
    "server": ("starlette", "uvicorn", "prometheus_client"),
}


def check_extras(*extras: str) -> None:
    """Raise MissingExtraError with all packages of some extras that are not installed, before any work."""
    missing = {extra: [name for name in EXTRAS[extra] if not _is_installed(name)] for extra in extras}
    needed = [extra for extra, names in missing.items() if names]
    if needed:
        raise MissingExtraError(",".join(needed), *(name for names in missing.values() for name in names))


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None
