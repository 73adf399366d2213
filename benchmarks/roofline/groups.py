"""Nodes of a graph in groups of equal work, with their floor at peak rates and their measured time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from onnx import ModelProto, NodeProto

from benchmarks.roofline.rates import Rates
from benchmarks.roofline.roles import HEADS, OTHER, PRODUCTS, roles_of
from benchmarks.roofline.shape_folding import Shape
from benchmarks.roofline.values import Value, nodes_of, values_of, with_branches_taken
from benchmarks.roofline.work import Arithmetic, Work, work_of

# Operator of the times that belong to no node of the graph.
ADDED = "added by onnxruntime"
UNKNOWN = "unknown"
NO_WORK = Work(None, 0, 0.0, 0.0, 0)


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes with the same role, operator and work.

    Attributes:
        values: shapes of the inputs; UNKNOWN if not all are known, then the work counts as 0.
        nodes: number of nodes; all counts and times below are those of one of them.
        arithmetic, products, weight_bytes, activation_bytes, elements: see `Work`.
        floor_s: seconds at peak rates.
        measured_s: mean seconds of a node; None: not measured.
    """

    role: str
    operator: str
    values: str
    nodes: int
    arithmetic: Arithmetic | None
    products: int
    weight_bytes: float
    activation_bytes: float
    elements: int
    floor_s: float
    measured_s: float | None

    @property
    def work(self) -> Work:
        """Work of one node."""
        return Work(self.arithmetic, self.products, self.weight_bytes, self.activation_bytes, self.elements)

    @property
    def is_product(self) -> bool:
        """True for products with weights, heads included."""
        return self.role == PRODUCTS or (self.role == HEADS and self.products > 0)


@dataclass(frozen=True)
class _Key:
    role: str
    operator: str
    values: str
    work: Work


def groups_of(
    model: ModelProto, inputs: Mapping[str, Shape], rates: Rates, times: Mapping[str, float] | None
) -> list[Group]:
    """Groups of the nodes that ran, in the order of their first nodes.

    Args:
        model: graph; its weights need not be loaded.
        inputs: shapes of the inputs.
        rates: peak rates of the host.
        times: measured seconds by name of a node; None: not measured, then all nodes of the branches that are taken.
    """
    if times is None:
        model = with_branches_taken(model, inputs)
    values, nodes = values_of(model, inputs), list(nodes_of(model.graph))
    weights = sum(value.bytes for value in values.values() if value.constant)
    found: defaultdict[_Key, list[float | None]] = defaultdict(list)
    for node, role in zip(nodes, roles_of(nodes, values), strict=True):
        if times is None or node.name in times:
            work = work_of(node, values)
            key = _Key(role, node.op_type, UNKNOWN if work is None else _shapes(node, values), work or NO_WORK)
            found[key].append(None if times is None else times[node.name])
    for name in sorted((times or {}).keys() - {node.name for node in nodes}):
        found[_Key(OTHER, ADDED, name, NO_WORK)].append((times or {})[name])
    return [_group(key, measured, rates.floor_s(key.work, weights)) for key, measured in found.items()]


def _shapes(node: NodeProto, values: Mapping[str, Value]) -> str:
    """Shapes of the inputs that have more than one element, as "1x128x384 384x1536"."""
    shapes = [values[name].shape for name in node.input if name and values[name].size > 1]
    return " ".join("x".join(map(str, shape)) for shape in shapes)


def _group(key: _Key, measured: Sequence[float | None], floor_s: float) -> Group:
    seconds = [each for each in measured if each is not None]
    return Group(
        role=key.role,
        operator=key.operator,
        values=key.values,
        nodes=len(measured),
        arithmetic=key.work.arithmetic,
        products=key.work.products,
        weight_bytes=key.work.weight_bytes,
        activation_bytes=key.work.activation_bytes,
        elements=key.work.elements,
        floor_s=floor_s,
        measured_s=sum(seconds) / len(seconds) if seconds else None,
    )
