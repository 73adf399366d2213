"""The weights of one task: the backbone with the task's adapter merged in, read row by row.

Keeps account of what was used: a tensor of the checkpoint or a key of the adapter that nothing asked for is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.pack.manifest import Adapter
from embedpack.storage.safetensors import StoredTensor
from embedpack_export.arrays import Float32, Matrix, ReadRows, RowIndex
from embedpack_export.sources.checkpoint import Checkpoint, check_is_float
from embedpack_export.sources.peft_adapter import PeftAdapter

T = TypeVar("T")


@dataclass(frozen=True)
class NameRules:
    """How a family's tensors may be named.

    Attributes:
        prefixes: wrappers' prefixes, taken off ("bert." of a BertForMaskedLM).
        renames: older endings and their present form.
        unused: pattern of tensors that no embedding needs (pretraining heads, buffers).
    """

    prefixes: tuple[str, ...]
    renames: Mapping[str, str]
    unused: re.Pattern[str]

    def normal(self, name: str) -> str:
        """The name that the family's graph uses."""
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        for old, new in self.renames.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        return name


class Weights:
    """Merged weights by name; call `check_all_used` once a graph has taken what it needs."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapter: PeftAdapter | None,
        rules: NameRules,
        belongs: Callable[[str], object] = lambda name: True,
    ) -> None:
        """Begin; tensors for which `belongs` is false are the business of another part of the model."""
        where = str(checkpoint.folder)
        self._rules = rules
        self._where = where
        tensors = _normalised(rules, checkpoint.tensors.items(), where)
        self._tensors = {name: tensor for name, tensor in tensors.items() if belongs(name)}
        adapted = str(adapter.folder) if adapter else ""
        self._updates = _normalised(rules, adapter.updates.items() if adapter else (), adapted)
        self._replacements = _normalised(rules, adapter.replacements.items() if adapter else (), adapted)
        self._adapter = adapter
        self._used: set[str] = set()
        # ||W' - W|| / ||W|| of what the adapter changed, by name.
        self._changes: dict[str, float] = {}

    def matrix(self, module: str, shape: tuple[int, int]) -> Matrix:
        """`module.weight` [rows, columns], merged.

        Raises:
            CheckpointError: it is missing or of another shape, or the adapter's update does not fit.
        """
        name = f"{module}.weight"
        base = self._tensor(name, shape)
        read = _row_reader(self._replacements.get(name, base))
        update = self._updates.get(module)
        if update is not None:
            update.check_shape(shape)
            self._used.add(module)
            read = update.merge(read, shape)
        merged = Matrix(name, shape, read)
        if (update is not None or name in self._replacements) and name not in self._changes:
            self._changes[name] = _relative_change(Matrix(name, shape, _row_reader(base)), merged)
        return merged

    def flattened(self, module: str, shape: tuple[int, ...]) -> Matrix:
        """`module.weight` of more than two axes as a matrix [first axis, all others].

        Raises:
            CheckpointError: as `matrix`, or an adapter changes it.
        """
        name = f"{module}.weight"
        if module in self._updates or name in self._replacements:
            raise CheckpointError(f"{name}: an adapter changes this convolution, which is not built")
        tensor = self._tensor(name, shape)
        flat = replace(tensor, shape=(shape[0], math.prod(shape[1:])))
        return Matrix(name, (shape[0], math.prod(shape[1:])), _row_reader(flat))

    def vector(self, name: str, size: int) -> Float32:
        """A bias or norm weight [size], with what the adapter changes in it.

        Raises:
            CheckpointError: as `matrix`.
        """
        base = self._tensor(name, (size,))
        replacement = self._replacements.get(name)
        vector = (replacement or base).float32()
        module = name.rpartition(".")[0]
        change = self._updates[module].bias_change() if name.endswith(".bias") and module in self._updates else None
        if change is not None:
            vector = vector + change
        if replacement is not None or change is not None:
            before = base.float32()
            self._changes[name] = float(np.linalg.norm(vector - before)) / max(float(np.linalg.norm(before)), 1e-30)
        if not np.isfinite(vector).all():
            raise CheckpointError(f"{name}: merged weights are not finite")
        return vector

    def check_all_used(self) -> None:
        """Refuse tensors and adapter keys that nothing asked for, and an adapter that changes nothing.

        Raises:
            CheckpointError: see above.
        """
        left = self._unused(self._tensors)
        if left:
            raise CheckpointError(
                f"{self._where}: the family has no use for {_some(left)}; is it another architecture?"
            )
        if self._adapter is None:
            return
        unused = self._unused([*self._updates, *self._replacements])
        if unused:
            raise CheckpointError(
                f"{self._adapter.folder}: the adapter changes {_some(unused)}, which this export of the model does not "
                "have; is it an adapter for another model?"
            )
        if not self._largest_change() > 0:
            raise CheckpointError(f"{self._adapter.folder}: the adapter changes nothing (all its updates are zero)")

    def adapter_record(self) -> Adapter | None:
        """What was merged, for the manifest."""
        if self._adapter is None:
            return None
        return Adapter(modules=len(self._changes), relative_change=float(f"{self._largest_change():.3e}"))

    def _tensor(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self._where}: tensor {name!r} is missing; is a shard or a file incomplete?")
        self._used.add(name)
        for found in (tensor, self._replacements.get(name, tensor)):
            if found.shape != shape:
                raise CheckpointError(
                    f"{found.path}: {found.name} has the shape {list(found.shape)}, config.json asks for {list(shape)}"
                )
            check_is_float(found)
        return tensor

    def _unused(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._used and not self._rules.unused.search(name)]

    def _largest_change(self) -> float:
        return max(self._changes.values(), default=0.0)


def _row_reader(tensor: StoredTensor) -> ReadRows:
    def read(rows: RowIndex) -> Float32:
        return tensor.rows(rows.start, rows.stop) if isinstance(rows, slice) else tensor.rows_at(rows)

    return read


def _relative_change(base: Matrix, merged: Matrix) -> float:
    change = size = 0.0
    for before, after in zip(base.chunks(), merged.chunks(), strict=True):
        change += float(np.square(after - before, dtype=np.float64).sum())
        size += float(np.square(before, dtype=np.float64).sum())
    return change**0.5 / max(size**0.5, 1e-30)


def _normalised(rules: NameRules, items: Iterable[tuple[str, T]], where: str) -> dict[str, T]:
    """The same items under the family's own names."""
    result: dict[str, T] = {}
    for name, item in items:
        normal = rules.normal(name)
        if normal in result:
            raise CheckpointError(f"{where}: two tensors stand for {normal!r}; one of them is {name!r}")
        result[normal] = item
    return result


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
