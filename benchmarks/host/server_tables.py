"""Tables of the server's benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.spreads import cell
from embedpack_export.evaluation.text_table import text_table


def table(results: Mapping[str, Any]) -> str:
    """Tables of one text and of the overload, and lines about the rest."""
    one, many, start = results["one_text"], results["clients"], results["start"]
    times = [
        (name, *(cell(each[share], 1, 2) for share in ("p50", "p99")), *_overhead_cells(one["overhead_ms"].get(name)))
        for name, each in one["ms"].items()
    ]
    rates = [
        (name, cell(rate, 1, 0), cell(many["share_of_offline"].get(name), 1, 2))
        for name, rate in many["tokens_per_s"].items()
    ]
    vectors = [
        (name, f"{each['equal_alone']:.4%}", f"{each['equal_at_clients']:.4%}", _scientific(each["max_1_minus_cosine"]))
        for name, each in results["vectors"].items()
    ]
    return "\n\n".join(
        [
            "start to ready: " + ", ".join(f"{form} {_start_cell(each)}" for form, each in start.items()),
            text_table((f"a text of {one['tokens']} tokens", "p50 ms", "p99 ms", "over p50", "over p99"), times),
            f"{many['clients']} clients, {many['requests']} requests, {many['texts']} texts; on the same cores\n"
            + text_table(("", "tokens/s", "of offline"), rates),
            text_table(("embedding_type", "equal alone", f"equal at {many['clients']}", "max 1 - cosine"), vectors),
            f"overload, --queue {results['overload']['queue']}\n"
            + text_table(OVERLOAD_HEADER, [_overload_row(each) for each in results["overload"]["rounds"]]),
        ]
    )


OVERLOAD_HEADER = (
    "requests/s", "sent", "accepted", "refused", "wrong", "lost", "unloaded p99 ms", "accepted p99 ms", "ratio",
    "refused p50 ms", "refused p99 ms",
)  # fmt: skip


def _overload_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (
        f"{one['requests_per_s']:.1f}",
        *(str(one[key]) for key in ("sent", "accepted", "refused", "wrong", "lost")),
    )
    p99 = (f"{one['unloaded_ms']['p99']:.0f}", f"{one['accepted_ms']['p99']:.0f}")
    refused = [f"{one['refused_ms'][share]:.1f}" if one["refused_ms"] else "" for share in ("p50", "p99")]
    return (*counts, *p99, f"{one['accepted_to_unloaded_p99']:.2f}", *refused)


def _overhead_cells(overhead: Mapping[str, Any] | None) -> tuple[str, str]:
    if overhead is None:
        return "", ""
    return cell(overhead["p50"], 1, 2), cell(overhead["p99"], 1, 2)


def _scientific(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _start_cell(start: Mapping[str, Any]) -> str:
    return f"{cell(start['wall_s'], 1, 2)} s ({cell(start['cpu_s'], 1, 2)} s of CPU)"


DOCUMENT_HEADER = ("server", "time of one text of 16 tokens, p50", "tokens/s of 64 clients")


def document_rows(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells of the document's table: one row a server."""
    times, shares = results["one_text"]["ms"], results["clients"]["share_of_offline"]
    engine = times["engine"]["p50"]["median"]
    return [
        (
            name,
            f"{times[name]['p50']['median'] / engine:.1f}x the engine alone",
            f"{share['median']:.0%} of one call offline",
        )
        for name, share in shares.items()
    ]


def document_note(results: Mapping[str, Any]) -> str:
    """Sentences about the rest of the results."""
    return " ".join([_start_note(results["start"]), _overload_note(results["overload"]), _vectors_note(results)])


def _start_note(start: Mapping[str, Any]) -> str:
    plain, prepared = (cell(start[form]["cpu_s"], 1, 2) for form in ("plain", "prepared"))
    return f"Start to ready: {plain} s of CPU, prepared {prepared} s."


def _overload_note(overload: Mapping[str, Any]) -> str:
    rounds = overload["rounds"]
    ratios = [each["accepted_to_unloaded_p99"] for each in rounds]
    refused = max(each["refused_ms"]["p99"] for each in rounds if each["refused_ms"])
    sent, wrong, lost = (sum(each[key] for each in rounds) for key in ("sent", "wrong", "lost"))
    return (
        f"At twice the rate that it can answer, with `--queue {overload['queue']}`: the p99 of accepted requests is at "
        f"most {max(ratios):.1f} times that of one client alone, that of refused ones at most "
        f"{refused:.0f} ms; of {sent} requests {wrong} wrong, {lost} lost."
    )


def _vectors_note(results: Mapping[str, Any]) -> str:
    vectors, clients = results["vectors"], results["clients"]["clients"]
    alone = min(each["equal_alone"] for each in vectors.values())
    together = ", ".join(f"{name} {each['equal_at_clients']:.1%}" for name, each in vectors.items())
    distance = max(each["max_1_minus_cosine"] or 0 for each in vectors.values())
    return (
        f"Values equal to those of `Embedder.encode`, bit for bit, in all types: {alone:.0%} for a request alone; for "
        f"{clients} at a time {together}, 1 - cosine at most {distance:.0e}."
    )
