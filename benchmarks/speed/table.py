"""Text tables of the speed benchmark's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.speed.rows import BASELINE, QUANTIZED
from benchmarks.spreads import cell
from embedpack_export.evaluation.text_table import text_table

RATIO, CPU_RATIO = f"speedup_over_{BASELINE}", f"cpu_speedup_over_{BASELINE}"


def table(results: Mapping[str, Any]) -> str:
    """Tables of fixed shapes, mixed lengths and peers, and the peak of a core."""
    parts = [_shapes(results), _mixed(results)]
    if results.get("peak_of_a_core") is not None:
        parts.append(peak_text(results["peak_of_a_core"]))
    if results.get("peers") is not None:
        parts += _peers(results["peers"])
    return "\n\n".join(part for part in parts if part)


def _shapes(results: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{row['rows']} x {row['tokens']}" + ", in parts" * row.get("in_parts", False),
            row["threads"],
            row["variant"],
            cell(row["wall_s"], 1000, 2),
            f"{1000 * row['cpu_s']['median']:.2f}",
            cell(row.get(RATIO), 1, 2),
            cell(row.get(CPU_RATIO), 1, 2),
            _share(row),
            _cosine(row),
        )
        for row in results["shapes"]
    ]
    header = ("shape", "threads", "variant", "ms per call", "CPU ms", f"speed / {BASELINE}", "by CPU time", "of peak")
    return text_table((*header, "cosine"), rows)


def _mixed(results: Mapping[str, Any]) -> str:
    rows = [
        (
            row["batching"],
            row["threads"],
            row["variant"],
            cell(row["tokens_per_s"], 1, 0),
            f"{row['tokens_computed'] / row['tokens'] - 1:.0%}",
            f"{row['cpu_s']['median']:.2f}",
            cell(row.get(RATIO), 1, 2),
            cell(row.get(CPU_RATIO), 1, 2),
            _cosine(row),
        )
        for row in results["mixed"]
    ]
    header = ("batching", "threads", "variant", "tokens/s", "padding", "CPU s", f"speed / {BASELINE}", "by CPU time")
    return text_table((*header, "cosine"), rows) if rows else ""


def peak_text(peak: Mapping[str, Any]) -> str:
    """Peaks of a core by arithmetic, with their instructions."""
    if "not_measured" in peak:
        return f"peak of a core: not measured, {peak['not_measured']}"
    peaks = (f"{name} {entry['gops']:.0f} ({entry['instructions']})" for name, entry in peak.items())
    return f"peak of a core, 10^9 operations per second: {', '.join(peaks)}"


def _peers(peers: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            f"{row['rows']} x {row['tokens']}" if "rows" in row else "mixed lengths",
            row["threads"],
            row["peer"],
            *compared(row),
            f"{row['peak_bytes']['median'] / 1e6:.0f} / {row['anonymous_bytes']['median'] / 1e6:.0f}",
        )
        for row in [*peers["shapes"], *peers["mixed"]]
    ]
    ratio = f"{QUANTIZED} speed / peer"
    header = ("inputs", "threads", "peer", "ms per call", "tokens/s", ratio, "by CPU time", "of peak", "cosine")
    missing = "\n".join(f"missing: {text}" for text in missing_peers(peers))
    return [text_table((*header, "MB peak / anonymous"), rows), missing]


def compared(row: Mapping[str, Any]) -> list[str]:
    """Time, speed, speed of the quantized variant relative to it, share of the peak, and cosine."""
    return [
        cell(row["wall_s"], 1000, 2),
        cell(row["tokens_per_s"], 1, 0),
        cell(row.get(f"{QUANTIZED}_speedup"), 1, 2),
        cell(row.get(f"{QUANTIZED}_cpu_speedup"), 1, 2),
        _share(row),
        _cosine(row),
    ]


def missing_peers(peers: Mapping[str, Any]) -> list[str]:
    """Names of peers that were not set up or failed, with the reasons."""
    return [f"{name}: {reason}" for name, reason in {**peers["missing"], **peers["failed"]}.items()]


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['share_of_peak']['median']:.0%}" if "share_of_peak" in row else ""


def _cosine(row: Mapping[str, Any]) -> str:
    """Mean and lowest cosine with torch in float32; empty if it was not measured."""
    return f"{row['cosine']['mean']:.5f}, {row['cosine']['min']:.5f}" if "cosine" in row else ""
