"""Accuracy report as text."""

from __future__ import annotations

from collections.abc import Sequence

from embedpack_export.evaluation.results import (
    AccuracyReport,
    CombinedResult,
    MtebResult,
    SettingResult,
    TaskResult,
    WorstGroup,
)
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.cosines import CosineSummary


def accuracy_text(report: AccuracyReport) -> str:
    """Format all tables, then the reason of the exit status."""
    limit = f"; quick run with {report.limit} queries a set" if report.limit else ""
    lines = [
        f"{report.model} compared with its reference ({report.reference}); margin: {report.margin:g} points; "
        f"95 % intervals{limit}"
    ]
    for task in report.tasks:
        lines += ["", *_task(task)]
    if report.combined:
        lines += ["", _combined(report.combined)]
    if report.mteb:
        lines += ["", _mteb(report.mteb)]
    for name, reason in report.skipped.items():
        lines += ["", f"skipped: {name}: {reason}"]
    return "\n".join([*lines, "", conclusion(report)])


def conclusion(report: AccuracyReport) -> str:
    """Format the reason of the exit status: all outcomes that decide it are non-inferior, or those that are not."""
    deciding = [(task.task, result) for task in report.tasks for result in task.settings if result.decides_exit_status]
    failed = [
        f"{task}, {result.setting}, {result.measure}: {result.test}"
        for task, result in deciding
        if result.test.outcome != "non-inferior"
    ]
    if failed:
        return "\n  ".join([f"FAILED: a loss above {report.margin:g} points cannot be ruled out for:", *failed])
    return f"passed: all {len(deciding)} settings are non-inferior at a margin of {report.margin:g} points"


def _task(task: TaskResult) -> list[str]:
    deciding = [result for result in task.settings if result.decides_exit_status]
    others = [result for result in task.settings if not result.decides_exit_status]
    parts = [f"TASK {task.task}", _settings(deciding), _sets(deciding)]
    if others:
        parts += ["Informational (does not affect the exit status):", _settings(others)]
    return [line for part in [*parts, _cosines(task)] for line in (part, "")][:-1]


def _settings(results: Sequence[SettingResult]) -> str:
    header = (
        "setting", "bytes", "measure", "reference", "score", "difference", "95 % interval", "retention", "worst set",
        "worst language", "outcome",
    )  # fmt: skip
    rows = [
        (
            result.setting,
            result.bytes,
            result.measure,
            f"{result.reference:.2f}",
            f"{result.score:.2f}",
            f"{result.test.difference:+.3f}",
            span(result.test.low, result.test.high),
            _optional(result.retention, ".2%"),
            _worst(result.worst_set),
            _worst(result.worst_language),
            result.test,
        )
        for result in results
    ]
    return text_table(header, rows)


def _sets(results: Sequence[SettingResult]) -> str:
    header = (
        "set", "setting", "queries", "reference", "score", "difference", "95 % interval", "Recall@100", "top 10", "RBO",
        "cosine mean", "1 %", "lowest",
    )  # fmt: skip
    rows = [
        (
            set_result.set,
            result.setting,
            set_result.queries,
            f"{set_result.reference:.2f}",
            f"{set_result.score:.2f}",
            f"{set_result.difference:+.3f}",
            span(set_result.low, set_result.high),
            _optional(set_result.recall_at_100, ".2f"),
            _optional(set_result.top_10_overlap, ".2%"),
            _optional(set_result.rank_biased_overlap, ".4f"),
            *_cosine_cells(set_result.cosine),
        )
        for result in results
        for set_result in result.sets
    ]
    return text_table(header, sorted(rows, key=lambda row: str(row[0])))


def _cosines(task: TaskResult) -> str:
    rows = [
        (group.variant, label, summary.count, *_cosine_cells(summary))
        for group in task.cosines
        for label, summary in (*group.languages.items(), *group.lengths.items())
    ]
    return text_table(("cosine by language and length", "", "inputs", "mean", "1 %", "lowest"), rows)


def _combined(results: Sequence[CombinedResult]) -> str:
    rows = [
        (
            f"{result.weights} {result.stored}",
            result.sets,
            f"{result.test.queries:,}",
            f"{result.test.difference:+.3f}",
            span(result.test.low, result.test.high),
            result.test,
        )
        for result in results
    ]
    return text_table(("all tasks", "sets", "queries", "difference", "95 % interval", "outcome"), rows)


def _mteb(results: Sequence[MtebResult]) -> str:
    rows = [
        (
            result.name,
            result.task,
            result.variant,
            f"{result.reference:.2f}",
            f"{result.score:.2f}",
            f"{result.difference:+.3f}",
        )
        for result in results
    ]
    return text_table(("mteb (informational)", "task", "variant", "reference", "score", "difference"), rows)


def _cosine_cells(summary: CosineSummary | None) -> tuple[str, str, str]:
    """Format mean, 1 % quantile and lowest cosine; empty cells without a summary."""
    if summary is None:
        return "", "", ""
    return f"{summary.mean:.6f}", f"{summary.p1:.6f}", f"{summary.min:.6f}"


def span(low: float, high: float) -> str:
    """Format an interval."""
    return f"[{low:+.2f}, {high:+.2f}]"


def _worst(group: WorstGroup) -> str:
    return f"{group.name} {group.difference:+.2f}"


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
