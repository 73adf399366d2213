"""Text tables of the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.roofline.groups import ADDED, UNKNOWN, Group
from benchmarks.roofline.roles import ROLES
from benchmarks.roofline.totals import Total, totals_by
from embedpack_export.evaluation.text_table import text_table

HEADER = ("nodes", "10^6 products", "MB weights", "MB others", "10^6 elements", "floor us", "us", "share", "us / floor")


def table(results: Mapping[str, Any]) -> str:
    """Tables by role and by operator for each shape, and the rates."""
    parts = ["\n".join(rates_lines(results["rates"]))]
    for row in results["shapes"]:
        groups = msgspec.convert(row["groups"], list[Group])
        parts += [headline(row, groups), *_tables(groups), *_unknown(groups)]
        if row["predicted"] is not None:
            there = msgspec.convert(row["predicted"], list[Group])
            parts += [_prediction(results["host"], row, there), *_tables(there)[:1]]
    return "\n\n".join(parts)


def headline(row: Mapping[str, Any], groups: Sequence[Group]) -> str:
    """Times of a shape: of a run, of all nodes, of those that are no products, the floor."""
    total = Total.of("all", groups)
    name = f"{row['rows']}x{row['tokens']}"
    if total.measured_s is None:
        return f"{name}: floor {1e6 * total.floor_s:.0f} us, not measured"
    others_s = Total.of("", [group for group in groups if not group.is_product]).time_s
    return (
        f"{name}: {1e6 * row['cpu_s']:.0f} us of CPU time a run (median of {row['runs']}); nodes, with a profile, "
        f"{1e6 * total.measured_s:.0f} us, of these {1e6 * others_s:.0f} us ({others_s / total.measured_s:.1%}) are no "
        f"products; floor {1e6 * total.floor_s:.0f} us"
    )


def rates_lines(rates: Mapping[str, Any]) -> list[str]:
    """Peak rates of the host: operations, and bytes of copies."""
    peaks = ", ".join(f"{name} {entry['gops']:.0f}" for name, entry in rates["peak_of_a_core"].items())
    copies = ", ".join(f"{int(size) >> 10} KB {rate:.0f}" for size, rate in rates["copy_gb_per_s"].items())
    return [
        f"peak of a core, 10^9 operations per second: {peaks}",
        f"copies in a working set, 10^9 bytes per second: {copies}",
    ]


def document_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Header and a row for each role: measured time at each shape, its share, and how far it is from the floor."""
    by_shape = {
        f"{row['rows']}x{row['tokens']}": msgspec.convert(row["groups"], list[Group]) for row in results["shapes"]
    }
    totals = {
        shape: {total.name: total for total in (*totals_by(groups, lambda group: group.role), Total.of("all", groups))}
        for shape, groups in by_shape.items()
    }
    roles = [role for role in (*ROLES, "all") if any(role in of_shape for of_shape in totals.values())]
    header = ["role", *(f"{shape}: us, share, times the floor" for shape in by_shape)]
    rows = [[role, *(_cell(of_shape.get(role), of_shape["all"]) for of_shape in totals.values())] for role in roles]
    return [header, *rows]


def _cell(total: Total | None, whole: Total) -> str:
    if total is None:
        return ""
    far = f", {total.time_s / total.floor_s:.1f}" if total.floor_s else ""
    return f"{1e6 * total.time_s:.0f}, {total.time_s / whole.time_s:.0%}{far}"


def _prediction(host: str, row: Mapping[str, Any], groups: Sequence[Group]) -> str:
    if row["cpu_s"] is None:
        return f"floor on {host}: {1e6 * Total.of('', groups).floor_s:.0f} us"
    here = msgspec.convert(row["groups"], list[Group])
    scale = Total.of("", groups).time_s / Total.of("", here).time_s
    measured = "" if row["cpu_s_there"] is None else f"; measured there: {1e6 * row['cpu_s_there']:.0f} us"
    return (
        f"predicted for {host}: {1e6 * row['cpu_s'] * scale:.0f} us a run{measured}\n"
        "It assumes that each operator is as far from its floor there as here, with the same kernels of onnxruntime."
    )


def _tables(groups: Sequence[Group]) -> list[str]:
    by_role = totals_by(groups, lambda group: group.role)
    by_operator = totals_by(groups, lambda group: group.operator)
    total = Total.of("all", groups)
    return [
        text_table((name, *HEADER), [cells(each, total) for each in (*rows, total)])
        for name, rows in (("role", by_role), ("operator", by_operator))
    ]


def _unknown(groups: Sequence[Group]) -> list[str]:
    """Note on nodes whose work is not known."""
    without = [group for group in groups if group.values == UNKNOWN or group.operator == ADDED]
    if not without:
        return []
    total = Total.of("", without)
    operators = ", ".join(sorted({group.operator for group in without}))
    return [f"work counts as 0 for {total.nodes} nodes, {1e6 * total.time_s:.0f} us, of unknown shapes: {operators}"]


def cells(total: Total, whole: Total) -> list[object]:
    """Cells of the row of a total, its name first and then those of HEADER."""
    measured = total.measured_s
    return [
        total.name,
        total.nodes,
        f"{total.products / 1e6:.1f}",
        f"{total.weight_bytes / 1e6:.2f}",
        f"{total.activation_bytes / 1e6:.2f}",
        f"{total.elements / 1e6:.2f}",
        f"{1e6 * total.floor_s:.0f}",
        "" if measured is None else f"{1e6 * measured:.0f}",
        f"{total.time_s / whole.time_s:.1%}",
        "" if measured is None or not total.floor_s else f"{measured / total.floor_s:.2f}",
    ]
