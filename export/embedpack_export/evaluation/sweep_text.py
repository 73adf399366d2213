"""Sweep report as text."""

from __future__ import annotations

from embedpack_export.evaluation.accuracy_text import span
from embedpack_export.evaluation.results import Setting
from embedpack_export.evaluation.sweep import Recommendation, SweepReport, SweepRow, TaskSweep
from embedpack_export.evaluation.text_table import text_table

FIGURES = ("files MB", "peak MB", "tokens/s", "nDCG@10", "difference", "95 % interval")
HEADER = ("setting", "bytes", *FIGURES, "front", "outcome")


def sweep_text(report: SweepReport) -> str:
    """Format all settings of each task, the cheapest first, then the recommended ones."""
    limit = f"; quick run with {report.limit} queries a set" if report.limit else ""
    lines = [
        f"{report.model} compared with full float32 vectors of its reference ({report.reference}); margin: "
        f"{report.margin:g} points{limit}",
        "bytes: size of a document's vector or vectors; files, peak memory and tokens/s: cost of the variant; *: on "
        "the Pareto front of bytes, speed and nDCG@10",
    ]
    for task in report.tasks:
        lines += ["", f"TASK {task.task}", text_table(HEADER, [_row(row) for row in task.rows]), ""]
        lines += [recommendation_text(task, choice, report.margin) for choice in task.recommended]
    return "\n".join(lines + [f"skipped: {name}: {reason}" for name, reason in report.skipped.items()])


def recommendation_text(task: TaskSweep, choice: Recommendation, margin: float) -> str:
    """Format the recommended settings with the estimate and the bound of their loss."""
    if choice.by_estimate is None:
        return f"no setting of {choice.vectors} vectors is within the margin of {margin:g} points; raise --max-loss"
    text = f"recommended {choice.vectors} vectors: {_described(task, choice.by_estimate)}"
    if choice.by_bound is None:
        return f"{text}; no setting is non-inferior at a margin of {margin:g} points"
    if choice.by_bound == choice.by_estimate:
        return text
    return f"{text}; cheapest non-inferior setting: {_described(task, choice.by_bound)}"


def _described(task: TaskSweep, setting: Setting) -> str:
    (row,) = (row for row in task.rows if row.setting == setting)
    test = row.test
    return f"{setting}, {row.bytes} bytes, {test.difference:+.3f} points, bound {test.low:+.3f} ({test})"


def _row(row: SweepRow) -> tuple[object, ...]:
    return (
        row.setting,
        row.bytes,
        *cells(row),
        "*" if row.on_front else "",
        row.test,
    )


def cells(row: SweepRow) -> list[str]:
    """Format the figures of `FIGURES`."""
    return [
        f"{row.cost.file_bytes / 1e6:.1f}",
        f"{row.cost.peak_rss_bytes / 1e6:.0f}",
        f"{row.cost.tokens_per_s:,.0f}",
        f"{row.ndcg_at_10:.2f}",
        f"{row.test.difference:+.3f}",
        span(row.test.low, row.test.high),
    ]
