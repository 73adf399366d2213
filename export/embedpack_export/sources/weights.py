"""Weights of one task: the backbone with the task's adapter merged in, read row by row.

Unused tensors of the checkpoint and unused keys of the adapter are errors, so all uses are recorded.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from embedpack.errors import CheckpointError
from embedpack.pack.manifest import AdapterRecord
from embedpack.storage.safetensors import StoredTensor
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix, ReadRows, RowIndex, row_chunks
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.checkpoint import Checkpoint, check_is_float
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.relative_change import RelativeChange
from embedpack_export.sources.token_rows import TokenRows

logger = logging.getLogger("embedpack")

_RESIZED = (
    "; if the vocabulary was resized for the training, save the resized model as well (resize_token_embeddings, "
    "save_pretrained) and export that one"
)


@dataclass(frozen=True)
class EmbeddingTable:
    """An embedding table, and what an adapter adds to the rows of it that are looked up."""

    matrix: Matrix  # [vocabulary, hidden]
    change: LowRankUpdate | TokenRows | None  # update or replaced rows that are not part of the matrix

    @property
    def module(self) -> str:
        """Module name of the table."""
        return self.matrix.name.removesuffix(".weight")


class Weights:
    """Merged weights by name; call `check_all_used` after a graph has read its weights."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapter: Adapter | None,
        rules: NameRules,
        belongs: Callable[[str], object] = lambda name: True,
    ) -> None:
        """Index the tensors whose names fulfil `belongs`; all others belong to another graph."""
        where = str(checkpoint.folder)
        self._rules = rules
        self._where = where
        tensors = rules.of_graph(checkpoint.tensors.items(), where)
        self._tensors = {name: tensor for name, tensor in tensors.items() if belongs(name)}
        adapted = str(adapter.folder) if adapter else ""
        self._updates = rules.of_graph(adapter.updates.items() if adapter else (), adapted)
        self._replacements = rules.of_graph(adapter.replacements.items() if adapter else (), adapted)
        self._token_rows = rules.of_graph(adapter.token_rows.items() if adapter else (), adapted)
        self._adapter = adapter
        self._used: set[StoredTensor] = set()  # tensors of the checkpoint and the adapter
        # Lengths of the columns of an embedding with a DoRA, by module: one pass over the table.
        self._column_lengths: dict[str, Float32 | None] = {}
        # Relative changes by the adapter, of matrices by module and of vectors by tensor name.
        self._matrix_changes: dict[str, RelativeChange] = {}
        self._vector_changes: dict[str, float] = {}

    def matrix(self, module: str, shape: tuple[int, int]) -> Matrix:
        """Merged `module.weight` [rows, columns].

        Raises:
            CheckpointError: it is missing or of another shape, or the adapter's update does not fit.
        """
        name = f"{module}.weight"
        base = self._tensor(name, shape)
        read = self._with_token_rows(module, shape, _row_reader(self._replacements.get(name, base)))
        update = self._update(module, shape)
        if update is not None:
            if module not in self._column_lengths:
                self._column_lengths[module] = update.column_lengths(read, shape[0])
            read = update.merge(read, self._column_lengths[module])
        if update is not None or name in self._replacements or module in self._token_rows:
            change = self._matrix_changes.setdefault(module, RelativeChange())
            read = change.reader(_row_reader(base), read)
        return Matrix(name, shape, read)

    def table(self, module: str, shape: tuple[int, int]) -> EmbeddingTable:
        """Embedding table `module.weight` [vocabulary, hidden]; an update of low rank or of rows is not merged into it.

        So the table is the same for all tasks, and stored once. DoRA is merged, and both kinds of updates at once;
        errors as `matrix`.
        """
        update, new = self._update(module, shape), self._rows(module, shape)
        change = new if update is None else update
        if change is None or (update is not None and (update.magnitude is not None or new is not None)):
            return EmbeddingTable(self.matrix(module, shape), None)
        name = f"{module}.weight"
        # `_largest_change` reads the merged matrix.
        self._matrix_changes.setdefault(module, RelativeChange())
        read = _row_reader(self._replacements.get(name, self._tensor(name, shape)))
        return EmbeddingTable(Matrix(name, shape, read), change)

    def flattened(self, module: str, shape: tuple[int, ...]) -> Matrix:
        """`module.weight` of more than two axes as a matrix [first axis, all others].

        Raises:
            CheckpointError: as `matrix`, or an adapter changes it.
        """
        name = f"{module}.weight"
        if module in self._updates or name in self._replacements:
            raise CheckpointError(f"{name}: an adapter changes this convolution, which is not supported")
        tensor = self._tensor(name, shape)
        flat = replace(tensor, shape=(shape[0], math.prod(shape[1:])))
        return Matrix(name, (shape[0], math.prod(shape[1:])), _row_reader(flat))

    def vector(self, name: str, size: int) -> Float32:
        """Merged bias or norm weight [size].

        Raises:
            CheckpointError: as `matrix`.
        """
        base = self._tensor(name, (size,)).float32()
        replacement = self._replacements.get(name)
        vector = base if replacement is None else replacement.float32()
        change = self._bias_change(name, size)
        if change is not None:
            vector = vector + change
        if replacement is not None or change is not None:
            self._vector_changes[name] = float(np.linalg.norm(vector - base)) / max(float(np.linalg.norm(base)), 1e-30)
        return _finite(name, vector)

    def array(self, name: str, shape: tuple[int, ...]) -> Float32:
        """A small tensor as a whole, such as a table of positions, which no adapter changes.

        Raises:
            CheckpointError: as `matrix`.
        """
        return _finite(name, self._tensor(name, shape).float32())

    def new_bias(self, module: str, size: int) -> Float32 | None:
        """Bias [size] that an adapter gives to a linear layer without one; None: it gives none.

        Raises:
            CheckpointError: the adapter's bias is of another size, or not finite.
        """
        name = f"{module}.bias"
        bias = self._bias_change(name, size)
        if bias is None:
            return None
        # Relative to itself: there is nothing else to compare it with.
        self._vector_changes[name] = float(bias.any())
        return _finite(name, bias)

    def has_copy(self, name: str, tensor: StoredTensor) -> bool:
        """True if a tensor has the values of the checkpoint's tensor of this name."""
        blocks = self._rules.of_graph([(name, tensor)], self._where)
        return all(_equal(self._tensors.get(name), block) for name, block in blocks.items())

    def check_all_used(self) -> None:
        """Raise CheckpointError for unused tensors, unused adapter keys and an adapter that changes nothing."""
        tensors = self._unused(self._tensors)
        if tensors:
            raise CheckpointError(f"{self._where}: unused tensors: {_first_five(tensors)}; is it another architecture?")
        if self._adapter is None:
            return
        tensors_of_adapter = self._adapter_tensors()
        unused = self._unused(tensors_of_adapter)
        if unused:
            key = tensors_of_adapter[min(unused)]
            raise CheckpointError(
                f"{key.path}: the adapter changes {_first_five(unused)}, which this export of the model does not have "
                f"(key {key.name}); is it an adapter for another model?"
            )
        left = [name for name, tensor in tensors_of_adapter.items() if tensor not in self._used]
        if left:
            logger.info("%s: left out, because no embedding needs them: %s", self._adapter.folder, _first_five(left))
        if not self._largest_change() > 0:
            raise CheckpointError(f"{self._adapter.folder}: the adapter changes nothing (all its updates are zero)")

    def adapter_record(self) -> AdapterRecord | None:
        """Entry of the manifest for the merged adapter."""
        if self._adapter is None:
            return None
        modules = len(self._matrix_changes) + len(self._vector_changes)
        return AdapterRecord(modules=modules, relative_change=float(f"{self._largest_change():.3e}"))

    def _tensor(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self._where}: tensor {name!r} is missing; is a shard or a file incomplete?")
        for stored in (tensor, self._replacements.get(name, tensor)):
            self._used.add(stored)
            if stored.shape != shape:
                remedy = _RESIZED if stored is not tensor and len(shape) == 2 and stored.shape[1:] == shape[1:] else ""
                raise CheckpointError(
                    f"{stored.path}: {stored.name} has the shape {list(stored.shape)}, config.json needs {list(shape)}"
                    f"{remedy}"
                )
            check_is_float(stored)
        return tensor

    def _update(self, module: str, shape: tuple[int, int]) -> LowRankUpdate | None:
        """The update of a matrix, which is used from now on; its bias is another tensor's."""
        update = self._updates.get(module)
        if update is not None:
            update.check_shape(shape)
            self._used |= set(update.tensors.values()) - {update.b_bias}
        return update

    def _with_token_rows(self, module: str, shape: tuple[int, int], read: ReadRows) -> ReadRows:
        """Reader of a table with the rows that the adapter replaces."""
        new = self._rows(module, shape)
        return read if new is None else new.merge(read)

    def _rows(self, module: str, shape: tuple[int, int]) -> TokenRows | None:
        """The replaced rows of a table, which are used from now on."""
        new = self._token_rows.get(module)
        if new is not None:
            new.check_shape(shape)
            self._used.add(new.rows)
        return new

    def _bias_change(self, name: str, size: int) -> Float32 | None:
        """Change of a vector by the bias of an update's B, [size]."""
        module, _, leaf = name.rpartition(".")
        update = self._updates.get(module) if leaf == "bias" else None
        if update is None or update.b_bias is None:
            return None
        self._used.add(update.b_bias)
        return update.bias_change(size)

    def _adapter_tensors(self) -> dict[str, StoredTensor]:
        """Tensors of the adapter; those of an update that is used in part have the part in their name."""
        tensors = self._replacements | {module: new.rows for module, new in self._token_rows.items()}
        for module, update in self._updates.items():
            is_used = self._used.intersection(update.tensors.values())
            tensors |= {f"{module}.{part}" if is_used else module: tensor for part, tensor in update.tensors.items()}
        return tensors

    def _unused(self, tensors: Mapping[str, StoredTensor]) -> list[str]:
        # Patterns of tensors end with the dot after a module, which the modules of an adapter lack.
        return [
            name
            for name, tensor in tensors.items()
            if tensor not in self._used and not any(map(self._rules.unused.search, (name, f"{name}.")))
        ]

    def _largest_change(self) -> float:
        """The largest relative change of a tensor; reads matrices that no graph has read."""
        changes = list(self._vector_changes.values())
        for module, change in list(self._matrix_changes.items()):
            rows, columns = self._tensors[f"{module}.weight"].shape
            if change.rows < rows:
                change.rows, change.change, change.size = 0, 0.0, 0.0
                for _ in self.matrix(module, (rows, columns)).chunks():
                    pass
            if not math.isfinite(change.value):
                raise CheckpointError(f"{self._where}: {module}.weight, which the adapter changes, is not finite")
            changes.append(change.value)
        return max(changes, default=0.0)


def _equal(own: StoredTensor | None, other: StoredTensor) -> bool:
    if own is None or own.shape != other.shape:
        return False
    chunks = row_chunks(own.shape[0])
    return all(np.array_equal(own.rows(start, stop), other.rows(start, stop)) for start, stop in chunks)


def _row_reader(tensor: StoredTensor) -> ReadRows:
    def read(rows: RowIndex) -> Float32:
        return tensor.rows(rows.start, rows.stop) if isinstance(rows, slice) else tensor.rows_at(rows)

    return read


def _finite(name: str, vector: Float32) -> Float32:
    if not np.isfinite(vector).all():
        raise CheckpointError(f"{name}: merged weights are not finite")
    return vector


def _first_five(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
