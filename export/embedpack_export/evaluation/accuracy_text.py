"""An accuracy report as text."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack_export.evaluation.results import (
    AccuracyReport,
    MtebFigures,
    PooledFigures,
    SettingFigures,
    TaskFigures,
    Worst,
)
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.cosines import CosineSummary


def accuracy_text(report: AccuracyReport) -> str:
    """All tables, then what the exit status says."""
    limit = f"; a trial with {report.limit} queries a set" if report.limit else ""
    lines = [
        f"{report.pack} beside its reference ({report.reference}); largest loss put up with: {report.margin:g} points; "
        f"95 % intervals{limit}"
    ]
    for task in report.tasks:
        lines += ["", *_task(task)]
    if report.pooled:
        lines += ["", _pooled(report.pooled)]
    if report.mteb:
        lines += ["", _mteb(report.mteb)]
    for name, why in report.left_out.items():
        lines += ["", f"left out: {name}: {why}"]
    return "\n".join([*lines, "", conclusion(report)])


def conclusion(report: AccuracyReport) -> str:
    """One sentence: whether all that counts is non-inferior, or what is not."""
    counting = [(task.task, item) for task in report.tasks for item in task.settings if item.counts]
    failed = [
        f"{task}, {_name(item)}, {item.measure}: {item.verdict}"
        for task, item in counting
        if item.verdict.outcome != "non-inferior"
    ]
    if failed:
        return "\n  ".join([f"FAILED: not non-inferior at {report.margin:g} points:", *failed])
    return f"passed: all {len(counting)} verdicts that count are non-inferior at {report.margin:g} points"


def _task(task: TaskFigures) -> list[str]:
    counting = [item for item in task.settings if item.counts]
    others = [item for item in task.settings if not item.counts]
    parts = [f"TASK {task.task}", _verdicts(counting), _sets(counting)]
    if others:
        parts += ["Shown, but without a say in the exit status:", _verdicts(others)]
    return [line for part in [*parts, _cosines(task)] for line in (part, "")][:-1]


def _verdicts(settings: Sequence[SettingFigures]) -> str:
    header = (
        "setting", "bytes", "measure", "reference", "found", "difference", "95 % interval", "of full", "worst set",
        "worst language", "verdict",
    )  # fmt: skip
    rows = [
        (
            _name(item),
            item.bytes,
            item.measure,
            f"{item.reference:.2f}",
            f"{item.found:.2f}",
            f"{item.verdict.difference:+.3f}",
            span(item.verdict.low, item.verdict.high),
            "" if item.retention is None else f"{item.retention:.2%}",
            _worst(item.worst_set),
            _worst(item.worst_language),
            item.verdict,
        )
        for item in settings
    ]
    return text_table(header, rows)


def _sets(settings: Sequence[SettingFigures]) -> str:
    header = (
        "set", "setting", "queries", "reference", "found", "difference", "95 % interval", "Recall@100", "top 10", "RBO",
        "cosine mean", "1 %", "lowest",
    )  # fmt: skip
    rows = [
        (
            figures.set,
            _name(item),
            figures.queries,
            f"{figures.reference:.2f}",
            f"{figures.found:.2f}",
            f"{figures.difference:+.3f}",
            span(figures.low, figures.high),
            _optional(figures.recall_at_100, ".2f"),
            _optional(figures.top_10_overlap, ".2%"),
            _optional(figures.rank_biased_overlap, ".4f"),
            *cosine_cells(figures.cosine),
        )
        for item in settings
        for figures in item.sets
    ]
    return text_table(header, sorted(rows, key=lambda row: str(row[0])))


def _cosines(task: TaskFigures) -> str:
    rows = [
        (group.variant, label, found.count, *cosine_cells(found))
        for group in task.cosines
        for label, found in (*group.languages.items(), *group.lengths.items())
    ]
    return text_table(("cosine by language and length", "", "inputs", "mean", "1 %", "lowest"), rows)


def _pooled(figures: Sequence[PooledFigures]) -> str:
    rows = [
        (
            f"{item.weights} {item.stored}",
            item.sets,
            f"{item.verdict.queries:,}",
            f"{item.verdict.difference:+.3f}",
            span(item.verdict.low, item.verdict.high),
            item.verdict,
        )
        for item in figures
    ]
    return text_table(("all tasks", "sets", "queries", "difference", "95 % interval", "verdict"), rows)


def _mteb(figures: Sequence[MtebFigures]) -> str:
    rows = [
        (item.name, item.task, item.variant, f"{item.reference:.2f}", f"{item.found:.2f}", f"{item.difference:+.3f}")
        for item in figures
    ]
    return text_table(("mteb, without a say", "task", "variant", "reference", "found", "difference"), rows)


def cosine_cells(found: CosineSummary | None) -> tuple[str, str, str]:
    """Mean, 1 % quantile and lowest."""
    if found is None:
        return "", "", ""
    return f"{found.mean:.6f}", f"{found.p1:.6f}", f"{found.min:.6f}"


def span(low: float, high: float) -> str:
    """An interval."""
    return f"[{low:+.2f}, {high:+.2f}]"


def _name(item: SettingFigures) -> str:
    return f"{item.setting.variant} {item.setting.stored}"


def _worst(worst: Worst) -> str:
    return f"{worst.name} {worst.difference:+.2f}"


def _optional(value: float | None, form: str) -> str:
    """Shares and points; nothing where there is no value."""
    return "" if value is None else format(value, form)
