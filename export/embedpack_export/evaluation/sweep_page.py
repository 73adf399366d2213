"""Sweep report as an HTML page with plots."""

from __future__ import annotations

from embedpack_export.evaluation.results import VectorKind
from embedpack_export.evaluation.sweep import SweepReport, TaskSweep
from embedpack_export.evaluation.sweep_text import FIGURES, cells, recommendation_text
from embedpack_export.html.axis import Axis
from embedpack_export.html.page import Badge, Column, Heading, Page, Paragraph, Part, Table, columns
from embedpack_export.html.plot import Point, Scatter, pareto_front
from embedpack_export.metrics.non_inferiority import Outcome

NDCG = Axis("nDCG@10, points", "high")
BYTES = Axis("bytes of a document", "low", log=True)
SPEED = Axis("tokens per second", "high")
BADGES: dict[Outcome, Badge] = {
    "non-inferior": Badge("non-inferior", "good"),
    "inferior": Badge("inferior", "bad"),
    "not resolvable": Badge("not resolvable", "open"),
}
COLUMNS = (*columns(("setting",), ("bytes", *FIGURES)), Column("outcome"))


def sweep_page(report: SweepReport) -> Page:
    """Build a page with recommendations, plots and a table for each task."""
    limit = [f"Quick run: only {report.limit} queries of each set."] if report.limit else []
    intro = [
        "Cost of each setting, and its nDCG@10 compared with full float32 vectors of the reference "
        f"({report.reference}). Margin: {report.margin:g} points of nDCG@10.",
        *limit,
    ]
    parts = [part for task in report.tasks for part in _task(task, report.margin)]
    skipped = [Paragraph(f"Skipped: {name}: {reason}") for name, reason in report.skipped.items()]
    return Page(f"{report.model}: sweep", intro, [*parts, *skipped])


def _task(task: TaskSweep, margin: float) -> list[Part]:
    parts: list[Part] = [Heading(f"Task {task.task}")]
    for choice in task.recommended:
        parts.append(Paragraph(recommendation_text(task, choice, margin)))
        parts += _plots(task, choice.vectors)
    rows: list[list[str | Badge]] = [
        [str(row.setting), f"{row.bytes:,}", *cells(row), BADGES[row.test.outcome]] for row in task.rows
    ]
    return [*parts, Table(f"All settings of {task.task}, the cheapest first", COLUMNS, rows)]


def _plots(task: TaskSweep, vectors: VectorKind) -> list[Scatter]:
    """Plot nDCG@10 against bytes and against speed."""
    rows = [row for row in task.rows if row.setting.vectors == vectors]
    by_bytes = [Point(str(row.setting), row.bytes, row.ndcg_at_10, row.setting.variant) for row in rows]
    by_speed = [Point(str(row.setting), row.cost.tokens_per_s, row.ndcg_at_10, row.setting.variant) for row in rows]
    caption = f"{task.task}, {vectors} vectors: nDCG@10 and"
    return [
        Scatter(f"{caption} bytes", BYTES, NDCG, by_bytes, pareto_front(by_bytes, BYTES, NDCG)),
        Scatter(f"{caption} speed", SPEED, NDCG, by_speed, pareto_front(by_speed, SPEED, NDCG)),
    ]
