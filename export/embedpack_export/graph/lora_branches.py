"""Adapters as inputs of a graph: y = W x + B (A x), with A and B given at run time (onnxruntime's LoRA adapters).

An embedding table has the same inputs: A has a row for each token, B turns it into a hidden state. Replaced rows are
such an update too: A chooses the row, B has its change.

The inputs default to rank 0, which adds nothing; an adapter may have any rank. They are float16: half the size of
float32, and more precise than the bfloat16 of published adapters. A format that quantizes activations has its own
inputs for A (`BranchInput`), which reads each activation once for the backbone and its branches.
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
from embedpack_export.graph.context import WHOLE, Activation, Array, BranchInput, GraphContext, LinearLayer, add_all
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
class _FloatInput:
    """See `BranchInput`: an activation in float32."""

    x: Activation
    channels: int

    def narrow(self, g: GraphBuilder, module: str) -> ir.Value:
        """See `BranchInput`."""
        values = self.x.values
        default = np.zeros((self.channels, 0), np.float16)
        down = _float(g, g.optional_input(lora_inputs(module)[0], (self.channels, f"{module}.rank"), default))
        bounds = [self.channels * index // len(values) for index in range(len(values) + 1)]
        parts = [slice(*pair) for pair in pairwise(bounds)] if self.x.parts else WHOLE
        factors = [_sliced(g, down, part, 0) for part in parts]
        return add_all(g, [g.op("MatMul", pair) for pair in zip(values, factors, strict=True)])

    def factor(self, module: str, down: Float32) -> dict[str, Array]:
        """See `BranchInput`."""
        if self.x.layout is not None:
            down = (down * self.x.layout.divisors)[:, self.x.layout.order]
        return {lora_inputs(module)[0]: down.T}


@dataclass(frozen=True)
class _Branch:
    """Branch of a linear layer: what it reads, and the layout of the layer's outputs."""

    source: BranchInput
    divisor: Float32 | None
    order: npt.NDArray[np.intp] | None

    def inputs(self, module: str, down: Float32, up: Float32) -> dict[str, Array]:
        """Inputs of the graph for the factors A [rank, in] and B [out, rank] of an adapter."""
        if self.divisor is not None:
            up = up / self.divisor[:, None]
        ordered = up if self.order is None else up[self.order]
        return self.source.factor(module, down) | {lora_inputs(module)[1]: ordered.T}


class AdapterBranches:
    """Branches of all linear layers and embedding tables that the adapter of any task changes."""

    def __init__(self, modules: frozenset[str]) -> None:
        """`modules` are the module names of these layers and tables."""
        self._modules = modules
        # Branches of layers, and tables of the backbone that have one, in the order of the graph.
        self._branches: dict[str, _Branch | Matrix] = {}

    def add(self, context: GraphContext, x: Activation, layer: LinearLayer, products: list[ir.Value]) -> list[ir.Value]:
        """See `Branches`."""
        if layer.module not in self._modules:
            return products
        rows, columns = layer.weight.shape
        source = x.branch_input or _FloatInput(x, columns)
        self._branches[layer.module] = _Branch(source, layer.divisor, layer.order)
        g = context.graph
        narrow, up = source.narrow(g, layer.module), _float(g, _factor_b(g, layer.module, rows))
        totals = []
        for product, part in zip(products, layer.parts, strict=True):
            factor = _sliced(g, up, part, 1)
            if x.branch_input is None:
                totals.append(g.op("Add", [product, g.op("MatMul", [narrow, factor])]))
            else:
                totals.append(_sum_and_product(g, product, narrow, factor, len(range(rows)[part])))
        return totals

    def add_rows(self, context: GraphContext, table: Matrix, index: Callable[[], ir.Value], rows: ir.Value) -> ir.Value:
        """See `Branches`."""
        module = table.name.removesuffix(".weight")
        if module not in self._modules:
            return rows
        self._branches[module] = table
        g, (vocabulary, hidden) = context.graph, table.shape
        down = g.optional_input(
            lora_inputs(module)[0], (vocabulary, f"{module}.rank"), np.zeros((vocabulary, 0), np.float16)
        )
        narrow = _float(g, g.op("Gather", [down, index()], {"axis": 0}))
        return g.op("Add", [rows, g.op("MatMul", [narrow, _float(g, _factor_b(g, module, hidden))])])

    def check_complete(self, adapter: Adapter, rules: NameRules) -> None:
        """Refuse an adapter of which a part has no branch; to be called when the graph is complete.

        Raises:
            CheckpointError: it changes a module that is no linear layer or table of embeddings.
        """
        for module in adapter_changes(adapter, rules):
            if module not in self._branches and not rules.unused.search(f"{module}."):
                raise CheckpointError(
                    f"{adapter.folder}: changes {module}, which is no linear layer or table of embeddings and cannot "
                    "be switched at run time; export it merged"
                )

    @property
    def count(self) -> int:
        """Number of branches so far."""
        return len(self._branches)

    def tensors(self, adapter: Adapter, rules: NameRules, since: int = 0) -> dict[str, Array]:
        """The adapter of a task, which is switchable, as inputs of the branches, without the first `since` branches.

        Raises:
            CheckpointError: its values do not fit float16.
        """
        inputs: dict[str, Array] = {}
        changes = adapter_changes(adapter, rules)
        for module, branch in list(self._branches.items())[since:]:
            if module not in changes:
                continue
            for name, values in _input_values(module, changes[module], branch).items():
                inputs[name] = _half(name, values, adapter) if name in lora_inputs(module) else values
        return inputs


def adapter_changes(adapter: Adapter, rules: NameRules) -> dict[str, LowRankUpdate | TokenRows]:
    """Updates and replaced rows of an adapter by module of the graph; errors as `NameRules.of_graph`."""
    where = str(adapter.folder)
    return {
        **rules.of_graph(adapter.updates.items(), where),
        **rules.of_graph(adapter.token_rows.items(), where),
    }


def _input_values(module: str, change: LowRankUpdate | TokenRows, branch: _Branch | Matrix) -> Mapping[str, Array]:
    """Inputs of a branch by name."""
    if isinstance(branch, Matrix):
        factors = _exact(*change.factors(branch)) if isinstance(change, TokenRows) else change.table_factors()
        return dict(zip(lora_inputs(module), factors, strict=True))
    if isinstance(change, TokenRows):
        raise CheckpointError(
            f"{change.rows.path}: {change.rows.name} replaces rows of {change.path}, which is no table of embeddings "
            "and cannot be switched at run time; export it merged"
        )
    return branch.inputs(module, *change.factors())


def _half(name: str, values: Float32, adapter: Adapter) -> Float16:
    """Values as float16; CheckpointError if they do not fit."""
    if np.abs(values).max() > MAX_FLOAT16:
        raise CheckpointError(f"{adapter.folder}: {name} has values too large for float16; use --adapters merged")
    return np.ascontiguousarray(values, np.float16)


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


def _factor_b(g: GraphBuilder, module: str, outputs: int) -> ir.Value:
    """Declare the factor B of a branch; float16 [rank, outputs].

    The axis has a name of its own: axes of the same name share buffers of one size, and ranks differ by module.
    """
    return g.optional_input(lora_inputs(module)[1], (f"{module}.rank", outputs), np.zeros((0, outputs), np.float16))


def _float(g: GraphBuilder, value: ir.Value) -> ir.Value:
    return g.op("Cast", [value], {"to": FLOAT})


def _sum_and_product(g: GraphBuilder, result: ir.Value, narrow: ir.Value, up: ir.Value, width: int) -> ir.Value:
    """Append result + narrow @ up, float32 [batch, sequence, width].

    Gemm adds in the product, which saves a pass over the result, but takes matrices.
    """
    rows, factors = (g.op("Flatten", [value], {"axis": -1}) for value in (result, narrow))
    total = g.op("Reshape", [g.op("Gemm", [factors, up, rows]), g.op("Shape", [result])])
    # The width again, as a constant: shape inference does not follow the shape of another value.
    return g.op("Reshape", [total, g.constant([0, 0, width], np.int64)])


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
