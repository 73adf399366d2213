"""float32 matrices: the reference point, and the graph that calibration observes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from embedpack_export.graph.target import Activation, LinearLayer, Target, add_bias
from embedpack_export.lora import fill_columns
from embedpack_export.weights import Matrix


class Fp32:
    """MatMul and Gather."""

    def linears(self, target: Target, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """See `LinearFormat`."""
        g = target.graph
        outputs = []
        for layer in layers:
            rows, columns = layer.weight.shape
            transposed = fill_columns(np.empty((columns, rows), np.float32), layer.weight.chunks())
            target.report(layer.weight.name, 0.0)
            weight = g.weight(layer.weight.name, "fp32", [transposed], np.float32, (columns, rows))
            outputs.append(add_bias(g, g.op("MatMul", [x.value, weight]), layer.bias_name, layer.bias))
        return outputs

    def table(self, target: Target, table: Matrix, ids: ir.Value) -> ir.Value:
        """See `LinearFormat`."""
        weight = target.graph.weight(table.name, "fp32", table.chunks(), np.float32, table.shape)
        target.report(table.name, 0.0)
        return target.graph.op("Gather", [weight, ids], {"axis": 0})


@dataclass(frozen=True)
class ObservedFp32(Fp32):
    """The same, with the input of every group of linears as an output of the graph.

    Attributes:
        sites: name of each of these outputs, which is the activation's site, and its channels; filled while the graph
            is built.
    """

    sites: dict[str, int] = field(default_factory=dict)

    def linears(self, target: Target, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """See `LinearFormat`."""
        channels = layers[0].weight.shape[1]
        seen = target.graph.op("Identity", [x.value])
        target.graph.output(seen, x.site, ir.DataType.FLOAT, ["batch", "sequence", channels])
        self.sites[x.site] = channels
        return super().linears(target, x, layers)
