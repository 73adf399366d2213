"""float32: the exact weights format, and the graph that calibration runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix, fill_columns
from embedpack_export.graph.context import Activation, GraphContext, LinearFormat, LinearLayer, add_all, add_bias


@dataclass
class Fp32(LinearFormat):
    """Linear layers as MatMul, tables as Gather; `group` is the weights group of the matrices."""

    group: str = "fp32"

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """See `LinearFormat`."""
        outputs = []
        for layer in layers:
            rows, columns = layer.weight.shape
            transposed = fill_columns(np.empty((columns, rows), np.float32), layer.weight.chunks())
            context.log_error(layer.weight.name, 0.0)
            outputs.append([self._part(context, x, layer, transposed, part) for part in layer.parts])
        return outputs

    def _part(
        self, context: GraphContext, x: Activation, layer: LinearLayer, transposed: Float32, part: slice
    ) -> ir.Value:
        """Append a part of the outputs of a layer, the sum over the parts of x."""
        g = context.graph
        pieces = np.split(transposed[:, part], len(x.values))
        whole = len(layer.parts) == len(pieces) == 1
        start = part.start or 0
        terms = []
        for index, (value, piece) in enumerate(zip(x.values, pieces, strict=True)):
            name = layer.weight.name if whole else f"{layer.weight.name}.{start}.{index}"
            weight = g.weight(name, self.group, [np.ascontiguousarray(piece)], np.float32, piece.shape)
            terms.append(g.op("MatMul", [value, weight]))
        bias = None if layer.bias is None else layer.bias[part]
        name = layer.bias_name if len(layer.parts) == 1 else f"{layer.bias_name}.{start}"
        return add_bias(g, add_all(g, terms), name, bias)

    def table(self, context: GraphContext, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        weight = context.graph.weight(table.name, self.group, table.chunks(), np.float32, table.shape)
        context.log_error(table.name, 0.0)
        return context.graph.op("Gather", [weight, ids], {"axis": 0})


@dataclass
class ObservedFp32(Fp32):
    """float32 with the inputs and residuals of all linear layers as outputs of the graph."""

    # Names of these outputs, the sites of the activations; filled while the graph is built.
    sites: list[str] = field(default_factory=list)

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        """See `LinearFormat`."""
        self._observe(context, x, layers[0].weight.shape[1])
        for layer in layers:
            if layer.residual is not None:
                self._observe(context, layer.residual, layer.weight.shape[0])
        return super().linears(context, x, layers)

    def _observe(self, context: GraphContext, x: Activation, channels: int) -> None:
        if x.site not in self.sites:
            output = context.graph.op("Identity", [x.value])
            context.graph.output(output, x.site, ir.DataType.FLOAT, [f"{x.site}.rows", f"{x.site}.columns", channels])
            self.sites.append(x.site)


def exact_linear(context: GraphContext, x: Activation, layer: LinearLayer) -> ir.Value:
    """Append a linear layer that is float32 in every weights format."""
    products = Fp32("shared").linears(context, x, [layer])[0]
    return products[0] if context.branches is None else context.branches.add(context, x, layer, products)[0]
