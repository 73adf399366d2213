"""Adapters as inputs of a graph: y = W x + B (A x), with A and B given at run time (onnxruntime's LoRA adapters).

The inputs default to rank 0, which adds nothing; an adapter may have any rank. They are float16: half the size of
float32, and more precise than the bfloat16 of published adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.errors import CheckpointError
from embedpack.host.onnxruntime import ort
from embedpack.pack.graph_io import lora_inputs
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.quantization.channel_layout import ChannelLayout
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.weights import NameRules

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
    """Branches of all linear layers that the adapter of any task changes."""

    def __init__(self, modules: frozenset[str]) -> None:
        """`modules` are the module names of these layers."""
        self._modules = modules
        self._layouts: dict[str, _LayerLayout] = {}

    def add(self, context: GraphContext, x: Activation, layer: LinearLayer, product: ir.Value) -> ir.Value:
        """See `Branches`."""
        if layer.module not in self._modules:
            return product
        g = context.graph
        rows, columns = layer.weight.shape
        self._layouts[layer.module] = _LayerLayout(x.layout, layer.divisor, layer.order)
        factor_a, factor_b = lora_inputs(layer.module)
        # A name of its own: axes of the same name share buffers of one size, and ranks differ by module.
        rank = f"{layer.module}.rank"
        down = g.optional_input(factor_a, FLOAT16, (columns, rank), (columns, 0))
        up = g.optional_input(factor_b, FLOAT16, (rank, rows), (0, rows))
        narrow = g.op("MatMul", [x.value, g.op("Cast", [down], {"to": FLOAT})])
        return g.op("Add", [product, g.op("MatMul", [narrow, g.op("Cast", [up], {"to": FLOAT})])])

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
        updates = {rules.normal(module): update for module, update in adapter.updates.items()}
        for module, layout in list(self._layouts.items())[since:]:
            if module not in updates:
                continue
            down, up = layout.apply(*updates[module].factors())
            for name, values in zip(lora_inputs(module), (down.T, up.T), strict=True):
                if np.abs(values).max() > MAX_FLOAT16:
                    raise CheckpointError(
                        f"{adapter.folder}: {name} has values too large for float16; use --adapters merged"
                    )
                inputs[name] = np.ascontiguousarray(values, np.float16)
        return inputs


def check_switchable(adapter: Adapter) -> None:
    """Refuse an adapter that does more than low-rank updates of linear layers.

    Raises:
        CheckpointError: it replaces a tensor, or one of its updates has no branch.
    """
    if adapter.replacements:
        raise CheckpointError(
            f"{adapter.folder}: replaces {next(iter(adapter.replacements))}, which cannot be switched at run time; "
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
