"""Report of a reranker's accuracy as text."""

from __future__ import annotations

from embedpack_export.evaluation.accuracy_text import span
from embedpack_export.evaluation.reranking.results import Gain, RerankingReport
from embedpack_export.evaluation.text_table import text_table


def reranking_text(report: RerankingReport) -> str:
    """Format the tables of gains and of losses, then the reason of the exit status."""
    limit = f"; quick run with {report.limit} queries a set" if report.limit else ""
    first = (
        f"{report.model} reranks the first {report.depth} documents of {report.first_stage}; reference: "
        f"{report.reference}; margin: {report.margin:g} points; 95 % intervals{limit}"
    )
    return "\n\n".join([first, _gains(report), _losses(report), conclusion(report)])


def conclusion(report: RerankingReport) -> str:
    """Format the outcome of each variant on the mean of the sets."""
    lines = [
        f"{name}: {test.difference:+.3f} points {span(test.low, test.high)}: {test}"
        for name, test in report.tests.items()
    ]
    head = "passed" if report.passed else f"FAILED: a loss above {report.margin:g} points cannot be ruled out"
    return "\n  ".join([f"{head}; mean of {len(report.sets)} sets, compared with the reference:", *lines])


def _gains(report: RerankingReport) -> str:
    rows = []
    for each in report.sets:
        rows.append((each.name, each.queries, "first stage", f"{each.first_stage:.2f}", "", "", f"{each.recall:.2f}"))
        orders = [("reference", each.reference), *((result.variant, result.gain) for result in each.variants)]
        rows += [(each.name, each.queries, name, *_gain_cells(gain), "") for name, gain in orders]
    header = ("set", "queries", "order by", "nDCG@10", "gain", "95 % interval", "Recall@100")
    return text_table(header, rows)


def _gain_cells(gain: Gain) -> tuple[str, str, str]:
    return f"{gain.ndcg:.2f}", f"{gain.difference:+.2f}", span(gain.low, gain.high)


def _losses(report: RerankingReport) -> str:
    rows = [
        (
            each.name,
            result.variant,
            f"{result.test.difference:+.3f}",
            span(result.test.low, result.test.high),
            f"{result.kendall:.4f}",
            f"{result.kendall_p1:.4f}",
            f"{result.largest_difference:.4f}",
        )
        for each in report.sets
        for result in each.variants
    ]
    header = ("set", "variant", "minus reference", "95 % interval", "tau", "1 %", "largest difference of scores")
    return text_table(header, rows)
