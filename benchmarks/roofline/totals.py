"""Sums over groups of nodes: of a role, of an operator, of a graph, and the prediction for another host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from benchmarks.roofline.groups import Group
from benchmarks.roofline.rates import Rates


@dataclass(frozen=True)
class Total:
    """Sums of all nodes of some groups; `measured_s` is None if nothing was measured."""

    name: str
    nodes: int
    products: int
    weight_bytes: float
    activation_bytes: float
    elements: int
    floor_s: float
    measured_s: float | None

    @classmethod
    def of(cls, name: str, groups: Sequence[Group]) -> Total:
        """Total of some groups."""
        measured = [group.nodes * group.measured_s for group in groups if group.measured_s is not None]
        return cls(
            name,
            sum(group.nodes for group in groups),
            sum(group.nodes * group.products for group in groups),
            sum(group.nodes * group.weight_bytes for group in groups),
            sum(group.nodes * group.activation_bytes for group in groups),
            sum(group.nodes * group.elements for group in groups),
            sum(group.nodes * group.floor_s for group in groups),
            sum(measured) if measured else None,
        )

    @property
    def time_s(self) -> float:
        """Measured seconds; the floor if nothing was measured."""
        return self.floor_s if self.measured_s is None else self.measured_s


def totals_by(groups: Sequence[Group], name: Callable[[Group], str]) -> list[Total]:
    """Totals by name, the longest time first."""
    names = dict.fromkeys(map(name, groups))
    totals = [Total.of(each, [group for group in groups if name(group) == each]) for each in names]
    return sorted(totals, key=lambda total: -total.time_s)


def predicted(groups: Sequence[Group], rates: Rates) -> list[Group]:
    """Groups as they should take on a host with other rates.

    A node is as far from its floor there as here: `measured_s` is the floor there times measured_s / floor_s here. A
    node without any work takes as long as here.
    """
    weights = sum(group.nodes * group.weight_bytes for group in groups)
    return [_predicted(group, rates.floor_s(group.work, weights)) for group in groups]


def _predicted(group: Group, floor_s: float) -> Group:
    measured_s = group.measured_s
    if measured_s is not None and group.floor_s:
        measured_s *= floor_s / group.floor_s
    return msgspec.structs.replace(group, floor_s=floor_s, measured_s=measured_s)
