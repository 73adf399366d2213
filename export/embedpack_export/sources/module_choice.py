"""Modules that an adapter_config.json chooses, by PEFT's rules (tuners_utils.py, check_target_module_exists).

PEFT makes updates for these modules alone, and ignores all others in the file of an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.sources.patterns import layer_of, whole, within

# PEFT's word for all linear layers but the head.
ALL_LINEAR = "all-linear"


class ModuleChoice(msgspec.Struct, frozen=True):
    """Fields of adapter_config.json by which PEFT chooses modules."""

    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    modules_to_save: list[str] | None = None

    def check(self, path: Path, modules: Sequence[str]) -> None:
        """Refuse updates of modules that are not chosen; `modules` are their names as they were trained.

        Raises:
            CheckpointError: see above, or a field is no regular expression; `path` is the configuration's.
        """
        try:
            others = [module for module in modules if not self._has(module)]
        except (re.error, RecursionError) as cause:
            raise CheckpointError(f"{path}: a field that chooses modules is no regular expression: {cause}") from cause
        if others:
            raise CheckpointError(
                f"{path}: does not choose {', '.join(sorted(others)[:5])}, which the file changes: are both of one run?"
            )

    def _has(self, module: str) -> bool:
        saved = any(re.match(within(name), module) for name in self.modules_to_save or ())
        if saved or _matches(self.exclude_modules, module):
            return False
        # Without targets PEFT has those of its own for a class of models.
        if self.target_modules in (None, ALL_LINEAR):
            return True
        if not _matches(self.target_modules, module):
            return False
        if isinstance(self.target_modules, str) or module in (self.target_modules or ()):
            return True
        return self._has_layer(module)

    def _has_layer(self, module: str) -> bool:
        layers = self.layers_to_transform
        if layers is None or layers == []:
            return True
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern or []
        patterns = [pattern for pattern in patterns if pattern]
        found = (re.match(layer_of(pattern), module) for pattern in patterns)
        first = next(filter(None, found), None) if patterns else re.match(r".*?\.[^.]*\.(?P<index>\d+)\.", module)
        return first is not None and int(first["index"]) in (layers if isinstance(layers, list) else [layers])


def _matches(wanted: str | list[str] | None, module: str) -> bool:
    """True if a regular expression matches the whole name, or one of the names is its end."""
    if isinstance(wanted, str):
        return bool(wanted) and re.match(whole(wanted), module) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted or ())
