"""What a family builds into, and the small vocabulary that it shares with the weights formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import onnx_ir as ir

from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.lora import Float32
from embedpack_export.statistics import SiteStatistics
from embedpack_export.weights import Matrix, Weights


@dataclass(frozen=True)
class GraphInputs:
    """Inputs of a text graph, int64 [batch, sequence]: token ids, and 1 for real tokens, 0 for padding on the right."""

    input_ids: ir.Value
    attention_mask: ir.Value


@dataclass(frozen=True)
class Activation:
    """What linear layers read, float32 [batch, sequence, channels].

    Attributes:
        value: the values.
        site: its name in the statistics of a calibration.
        rescaled: gives (x - shift) / scale where what made x can do that itself; takes shift and scale [channels] and
            the group that its weights go to.
        lower_bound: no value is below it.
    """

    value: ir.Value
    site: str
    rescaled: Callable[[Float32, Float32, str], ir.Value] | None = None
    lower_bound: float | None = None


@dataclass(frozen=True)
class LinearLayer:
    """One linear layer y = x @ weight.T + bias; weight [out, in]."""

    weight: Matrix
    bias: Float32 | None

    @property
    def bias_name(self) -> str:
        """Name of its bias."""
        return f"{self.weight.name.removesuffix('weight')}bias"


class LinearFormat(Protocol):
    """How linears and embedding tables are written in one weights format."""

    def linears(self, target: Target, x: Activation, layers: Sequence[LinearLayer]) -> list[ir.Value]:
        """Several layers that read the same activation, one result each."""
        ...

    def table(self, target: Target, table: Matrix, ids: ir.Value) -> ir.Value:
        """Rows of an embedding table [vocabulary, hidden] for token ids."""
        ...


@dataclass(frozen=True)
class Target:
    """The graph under construction.

    Attributes:
        graph: takes nodes and weights.
        weights: the merged weights of the task.
        format: how matrices are written.
        statistics: what calibration saw at each site; empty where the format needs none.
        report: hears the name of each matrix that was written and its relative rounding error.
    """

    graph: GraphBuilder
    weights: Weights
    format: LinearFormat
    statistics: Mapping[str, SiteStatistics]
    report: Callable[[str, float], None]

    def linears(self, x: Activation, *layers: LinearLayer) -> list[ir.Value]:
        """Linear layers that read the same activation."""
        return self.format.linears(self, x, layers)

    def table(self, table: Matrix, ids: ir.Value) -> ir.Value:
        """Rows of an embedding table."""
        return self.format.table(self, table, ids)


# Appends a model to a graph and returns its last hidden states, float32 [batch, sequence, hidden].
HiddenStates: TypeAlias = Callable[[Target, GraphInputs], ir.Value]


def add_bias(g: GraphBuilder, product: ir.Value, name: str, bias: Float32 | None, group: str = "shared") -> ir.Value:
    """`product + bias`; the product itself where there is none."""
    return product if bias is None else g.op("Add", [product, g.vector(name, bias, group)])
