"""Adapters as inputs of a graph: y = W x + B (A x), with A and B given at run time (onnxruntime's LoRA adapters).

An embedding table has the same inputs: A has a row for each token, B turns it into a hidden state. Replaced rows are
such an update too: A chooses the row, B has its change.

The inputs default to rank 0, which adds nothing; an adapter may have any rank. They are float16: half the size of
float32, and more precise than the bfloat16 of published adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.errors import CheckpointError
from embedpack.host.onnxruntime import ort
from embedpack.pack.graph_io import lora_inputs
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import WHOLE, Activation, GraphContext, LinearLayer, add_all
from embedpack_export.quantization.channel_layout import ChannelLayout
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.lora import LowRankUpdate
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.token_rows import TokenRows
from embedpack_export.sources.weights import Weights

Float16: TypeAlias = npt.NDArray[np.float16]

FLOAT, FLOAT16 = int(ir.DataType.FLOAT), ir.DataType.FLOAT16
MAX_FLOAT16 = 65504.0
# Required by onnxruntime's format, and not used: the manifest lists the adapters of a graph.
VERSION = 1


@dataclass(frozen=True)
class _LayerLayout:
    """Layout of the input and the output of a written layer, which the factors of its branch must have too."""

    inputs: ChannelLayout | None
    divisor: Float32 | None
    order: npt.NDArray[np.intp] | None

    def apply(self, down: Float32, up: Float32) -> tuple[Float32, Float32]:
        """Factors A [rank, in] and B [out, rank] of an adapter in this layout."""
        if self.inputs is not None:
            down = (down * self.inputs.divisors)[:, self.inputs.order]
        if self.divisor is not None:
            up = up / self.divisor[:, None]
        return down, up if self.order is None else up[self.order]


class AdapterBranches:
    """Branches of all linear layers and embedding tables that the adapter of any task changes."""

    def __init__(self, modules: frozenset[str]) -> None:
        """`modules` are the module names of these layers and tables."""
        self._modules = modules
        # Layouts of the branches in the order of the graph, and tables of the backbone.
        self._layouts: dict[str, _LayerLayout | Matrix] = {}

    def add(self, context: GraphContext, x: Activation, layer: LinearLayer, products: list[ir.Value]) -> list[ir.Value]:
        """See `Branches`."""
        if layer.module not in self._modules:
            return products
        rows, columns = layer.weight.shape
        self._layouts[layer.module] = _LayerLayout(x.layout, layer.divisor, layer.order)
        down, up = self._factors(context, layer.module, columns, rows)
        g = context.graph
        bounds = [columns * index // len(x.values) for index in range(len(x.values) + 1)]
        inputs = [slice(*pair) for pair in pairwise(bounds)] if x.parts else WHOLE
        down, up = _float(context, down), _float(context, up)
        factors = [_sliced(g, down, part, 0) for part in inputs]
        narrow = add_all(g, [g.op("MatMul", pair) for pair in zip(x.values, factors, strict=True)])
        return [
            _added(context, product, narrow, _sliced(g, up, part, 1))
            for product, part in zip(products, layer.parts, strict=True)
        ]

    def add_rows(self, context: GraphContext, table: Matrix, index: Callable[[], ir.Value], rows: ir.Value) -> ir.Value:
        """See `Branches`."""
        module = table.name.removesuffix(".weight")
        if module not in self._modules:
            return rows
        self._layouts[module] = table
        vocabulary, hidden = table.shape
        down, up = self._factors(context, module, vocabulary, hidden)
        narrow = context.graph.op("Gather", [down, index()], {"axis": 0})
        return _added(context, rows, _float(context, narrow), _float(context, up))

    def _factors(self, context: GraphContext, module: str, inputs: int, outputs: int) -> tuple[ir.Value, ir.Value]:
        """The inputs [inputs, rank] and [rank, outputs] of a branch."""
        factor_a, factor_b = lora_inputs(module)
        # A name of its own: axes of the same name share buffers of one size, and ranks differ by module.
        rank = f"{module}.rank"
        g = context.graph
        down = g.optional_input(factor_a, (inputs, rank), np.zeros((inputs, 0), np.float16))
        return down, g.optional_input(factor_b, (rank, outputs), np.zeros((0, outputs), np.float16))

    def check_complete(self, adapter: Adapter, rules: NameRules) -> None:
        """Refuse an adapter of which a part has no branch; to be called when the graph is complete.

        Raises:
            CheckpointError: it changes a module that is no linear layer or table of embeddings.
        """
        for module in adapter_changes(adapter, rules):
            if module not in self._layouts and not rules.unused.search(f"{module}."):
                raise CheckpointError(
                    f"{adapter.folder}: changes {module}, which is no linear layer or table of embeddings and cannot "
                    "be switched at run time; export it merged"
                )

    @property
    def count(self) -> int:
        """Number of branches so far."""
        return len(self._layouts)

    def tensors(self, adapter: Adapter, rules: NameRules, since: int = 0) -> dict[str, Float16]:
        """The adapter of a task, which is switchable, as inputs of the branches, without the first `since` branches.

        Raises:
            CheckpointError: its values do not fit float16.
        """
        inputs: dict[str, Float16] = {}
        changes = adapter_changes(adapter, rules)
        for module, layout in list(self._layouts.items())[since:]:
            if module not in changes:
                continue
            for name, values in zip(lora_inputs(module), _input_values(changes[module], layout), strict=True):
                if np.abs(values).max() > MAX_FLOAT16:
                    raise CheckpointError(
                        f"{adapter.folder}: {name} has values too large for float16; use --adapters merged"
                    )
                inputs[name] = np.ascontiguousarray(values, np.float16)
        return inputs


def adapter_changes(adapter: Adapter, rules: NameRules) -> dict[str, LowRankUpdate | TokenRows]:
    """Updates and replaced rows of an adapter by module of the graph; errors as `NameRules.of_graph`."""
    where = str(adapter.folder)
    return {
        **rules.of_graph(adapter.updates.items(), where),
        **rules.of_graph(adapter.token_rows.items(), where),
    }


def _input_values(change: LowRankUpdate | TokenRows, layout: _LayerLayout | Matrix) -> tuple[Float32, Float32]:
    """Both inputs of a branch: [inputs, rank] and [rank, outputs]."""
    if isinstance(layout, Matrix):
        return _exact(*change.factors(layout)) if isinstance(change, TokenRows) else change.table_factors()
    if isinstance(change, TokenRows):
        raise CheckpointError(
            f"{change.rows.path}: {change.rows.name} replaces rows of {change.path}, which is no table of embeddings "
            "and cannot be switched at run time; export it merged"
        )
    down, up = layout.apply(*change.factors())
    return down.T, up.T


def _exact(places: Float32, rows: Float32) -> tuple[Float32, Float32]:
    """Factors of replaced rows, each value as a sum of two float16 numbers: a few rows cost little."""
    first = rows.astype(np.float16).astype(np.float32)
    return np.concatenate([places, places], axis=1), np.concatenate([first, rows - first])


def _sliced(g: GraphBuilder, factor: ir.Value, part: slice, axis: int) -> ir.Value:
    """Append a part of a factor along an axis; the factor itself, if it is all."""
    if part == slice(None):
        return factor
    start, stop, axes = (g.constant([value], np.int64) for value in (part.start, part.stop, axis))
    return g.op("Slice", [factor, start, stop, axes])


def _float(context: GraphContext, value: ir.Value) -> ir.Value:
    return context.graph.op("Cast", [value], {"to": FLOAT})


def _added(context: GraphContext, result: ir.Value, narrow: ir.Value, up: ir.Value) -> ir.Value:
    """Append `result` plus the product of the narrow values of a branch with its second factor."""
    return context.graph.op("Add", [result, context.graph.op("MatMul", [narrow, up])])


def check_switchable(adapter: Adapter, backbone: Weights) -> None:
    """Refuse an adapter that does more than low-rank updates and replaced rows of tables.

    A copy of a tensor of the backbone is allowed: PEFT saves the whole embedding table next to an update of it.

    Raises:
        CheckpointError: it replaces a tensor, or rows of a table that it also updates, or one of its updates is no
            product of two factors.
    """
    for name, tensor in adapter.replacements.items():
        if not backbone.has_copy(name, tensor):
            raise CheckpointError(
                f"{adapter.folder}: replaces {name}, which cannot be switched at run time; export it merged"
            )
    for module in sorted(adapter.token_rows.keys() & adapter.updates.keys()):
        raise CheckpointError(
            f"{adapter.folder}: replaces rows of {module} and updates it too, which cannot be switched at run time; "
            "export it merged"
        )
    for update in adapter.updates.values():
        update.check_switchable()


def write_adapter(tensors: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Write an adapter (inputs of a graph by name) in onnxruntime's format."""
    adapter = ort.AdapterFormat()
    adapter.set_adapter_version(VERSION)
    adapter.set_model_version(VERSION)
    adapter.set_parameters({name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in tensors.items()})
    path.parent.mkdir(exist_ok=True)
    adapter.export_adapter(str(path.resolve()))
