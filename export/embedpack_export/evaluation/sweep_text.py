"""A sweep as text."""

from __future__ import annotations

from embedpack_export.evaluation.accuracy_text import span
from embedpack_export.evaluation.results import Setting
from embedpack_export.evaluation.sweep import Recommendation, SweepReport, SweepRow, TaskSweep
from embedpack_export.evaluation.text_table import text_table

HEADER = (
    "setting", "bytes", "files MB", "peak MB", "tokens/s", "nDCG@10", "difference", "95 % interval", "front", "verdict",
)  # fmt: skip


def sweep_text(report: SweepReport) -> str:
    """All settings of each task, the cheapest first, then what to take."""
    limit = f"; a trial with {report.limit} queries a set" if report.limit else ""
    lines = [
        f"{report.pack} beside whole float32 vectors of its reference ({report.reference}); largest loss wanted: "
        f"{report.max_loss:g} points{limit}",
        "bytes: of a document's vector, or all its vectors; files, peak memory and tokens/s: of the variant; *: no "
        "other setting is as good in bytes, speed and nDCG@10 and better in one",
    ]
    for task in report.tasks:
        lines += ["", f"TASK {task.task}", text_table(HEADER, [_row(row) for row in task.rows]), ""]
        lines += [recommendation_text(task, item, report.max_loss) for item in task.recommended]
    return "\n".join(lines + [f"left out: {name}: {why}" for name, why in report.left_out.items()])


def recommendation_text(task: TaskSweep, item: Recommendation, max_loss: float) -> str:
    """What to take, with the estimate and the bound of its loss."""
    if item.by_estimate is None:
        return f"no setting of {item.vectors} vectors loses at most {max_loss:g} points; raise --max-loss"
    text = f"recommended {item.vectors} vectors: {_described(task, item.by_estimate)}"
    if item.by_bound is None:
        return f"{text}; for no setting do the data exclude a larger loss than {max_loss:g} points"
    if item.by_bound == item.by_estimate:
        return text
    return f"{text}; the cheapest for which the data exclude a larger loss: {_described(task, item.by_bound)}"


def _described(task: TaskSweep, setting: Setting) -> str:
    (row,) = (row for row in task.rows if row.setting == setting)
    verdict = row.verdict
    return (
        f"{setting.variant} {setting.stored}, {row.bytes} bytes, {verdict.difference:+.3f} points, bound "
        f"{verdict.low:+.3f} ({verdict})"
    )


def _row(row: SweepRow) -> tuple[object, ...]:
    return (
        f"{row.setting.variant} {row.setting.stored}",
        row.bytes,
        f"{row.cost.file_bytes / 1e6:.1f}",
        f"{row.cost.peak_rss_bytes / 1e6:.0f}",
        f"{row.cost.tokens_per_s:,.0f}",
        f"{row.ndcg_at_10:.2f}",
        f"{row.verdict.difference:+.3f}",
        span(row.verdict.low, row.verdict.high),
        "*" if row.on_front else "",
        row.verdict,
    )
