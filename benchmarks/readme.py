"""Writes the README's tables from the results files: python -m benchmarks.readme.

Each stands between two comments that name it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SHAPES = ((1, 16), (32, 128))
PEER_SHAPES = ((1, 16), (1, 128), (32, 128))
DECODER_SHAPES = ((1, 16), (1, 128), (4, 128))
MULTI_PRECISIONS = ("float32", "int8", "4bit", "2bit", "binary")


def variants() -> list[str]:
    """Accuracy, size and speed of the variants of the default model."""
    accuracy, speed, footprint = (_results(name) for name in ("accuracy", "peers-minilm", "footprint"))
    rounding = _results("weights")["results"]
    sizes = {item["variant"]: item["weights_bytes"] / 1e6 for item in footprint["results"]["variants"]}
    sets = retrieval_sets(accuracy["results"])
    names = [entry["set"].rsplit("/", 1)[-1] for entry in sets]
    shapes = [f"{rows}x{tokens}" for rows, tokens in SHAPES]
    header = ["variant", "MB", *(f"nDCG@10 {name}" for name in names), "cosine, lowest 1 %", *shapes]
    lines = [_row(header), _row(["---"] + ["--:"] * (len(header) - 1))]
    reference = [f"{entry['reference_ndcg_at_10']:.2f}" for entry in sets]
    lines.append(_row(["torch, adapter unmerged", "", *reference, "", "", ""]))
    for variant in sets[0]["variants"]:
        found = [entry["variants"][variant] for entry in sets]
        ndcg = [f"{item['ndcg_at_10']:.2f} ({item['difference']:+.2f})" for item in found]
        worst = min(item["cosine"]["p1"] for item in found)
        lines.append(_row([variant, f"{sizes[variant]:.0f}", *ndcg, f"{worst:.5f}", *_speeds(speed, variant)]))
    pooled = ", ".join(
        f"{item['weights']} {item['verdict']['difference']:+.2f} [{item['verdict']['low']:+.2f}, "
        f"{item['verdict']['high']:+.2f}]"
        for item in accuracy["results"]["accuracy"]["pooled"]
    )
    gain, (low, high) = (rounding["shipped_less_nearest"][key] for key in ("mean", "interval_95"))
    note = (
        "all-MiniLM-L6-v2 with the default retrieval adapter. nDCG@10 in points, in brackets the difference to torch; "
        f"the lowest 1 % of cosines in the worst set. Mean difference over the sets of all three tasks: {pooled}. "
        f"int4 is {gain:.1f} points [{low:.1f}, {high:.1f}] better than the same rounded to the nearest, in the mean "
        f"of {len(rounding['sets'])} sets. "
        "Last columns: times as fast as fp32 for batches of texts x "
        f"tokens, one thread of {_cpu(speed)}. Files: `benchmarks/results/`."
    )
    return [*lines, "", note]


def retrieval_sets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Every set of the task retrieval: its name, the reference's nDCG@10, and the figures of whole float32 vectors."""
    (task,) = (task for task in results["accuracy"]["tasks"] if task["task"] == "retrieval")
    whole = [item for item in task["settings"] if item["counts"] and item["measure"] == "nDCG@10"]
    single = [item for item in whole if item["setting"]["vectors"] == "single"]
    return [
        {
            "set": described["name"],
            "reference_ndcg_at_10": described["reference"],
            "variants": {
                item["setting"]["variant"]: {
                    "ndcg_at_10": figures["found"],
                    "difference": figures["difference"],
                    "cosine": figures["cosine"],
                }
                for item in single
                for figures in item["sets"]
                if figures["set"] == described["name"]
            },
        }
        for described in task["sets"]
        if described["kind"] != "sts"
    ]


def peers() -> list[str]:
    """How much faster int8 is than what others make of the same model, and how near they stay to it."""
    file = _results("peers-minilm")
    note = (
        "How many times as fast embedpack's int8 of all-MiniLM-L6-v2 is, below 1 the other is faster; batches of texts "
        "x tokens, and 512 texts of 6 to 128 tokens, which each program batches as it does by itself. Medians of "
        f"{file['results']['repetitions']} runs in turns, one thread of {_cpu(file)}; cosines are to torch in float32."
    )
    if file["provenance"]["cpu"]["int8_products_saturate"]:
        note += " On this CPU the products of `quantize_dynamic` overflow."
    return [*_beside_peers(file, PEER_SHAPES), "", note]


def decoder_peers() -> list[str]:
    """The same of a decoder."""
    file = _results("peers-decoder")
    peak = file["results"]["peak_of_a_core"]
    int8 = [row for row in file["results"]["shapes"] if row["variant"].endswith("-int8")]
    shares = [row["share_of_peak"]["median"] for row in int8 if (row["rows"], row["tokens"]) in DECODER_SHAPES]
    note = (
        "The same of a decoder of the shape of jina-embeddings-v4, cut to four layers, with random weights. int8 does "
        f"{min(shares):.0%} to {max(shares):.0%} of the most that a core of this CPU can do, which is "
        f"{peak['int8']['gops'] / peak['fp32']['gops']:.1f} times what it can do in fp32."
    )
    return [*_beside_peers(file, DECODER_SHAPES), "", note]


def _beside_peers(file: dict[str, Any], wanted: Sequence[tuple[int, int]]) -> list[str]:
    found = file["results"]["peers"]
    columns = [[row for row in found["shapes"] if (row["rows"], row["tokens"]) == shape] for shape in wanted]
    names = [f"{rows}x{tokens}" for rows, tokens in wanted]
    if found["mixed"]:
        columns.append(found["mixed"])
        names.append("mixed lengths")
    cells: dict[str, list[str]] = {name: [] for name in found["peers"]}
    lowest = dict.fromkeys(cells, 1.0)
    for row in chain(*columns):
        cells[row["peer"]].append(f"{row['int8_speedup']['median']:.2f}x")
        lowest[row["peer"]] = min(lowest[row["peer"]], row["cosine"]["min"])
    lines = [_row(["int8 beside", *names, "their lowest cosine"]), _row(["---"] + ["--:"] * (len(names) + 1))]
    return lines + [_row([name, *times, f"{lowest[name]:.4f}"]) for name, times in cells.items() if times]


def codes() -> list[str]:
    """What every precision takes and keeps."""
    models = _results("codes")["results"]["models"]
    rows = [{row["precision"]: row for row in model["rows"] if row["dimensions"] == _full(model)} for model in models]
    names = [model["model"] for model in models]
    lines = [_row(["`precision`", "bytes", *names]), _row(["---", "--:"] + ["--:"] * len(names))]
    for precision, first in rows[0].items():
        kept = [f"{row[precision]['retention']:.1%} ({row[precision]['worst_retention']:.1%})" for row in rows]
        lines.append(_row([precision, str(first["bytes"]), *kept]))
    dimensions = " and ".join(sorted({str(_full(model)) for model in models}))
    sets = max(sum(item["counts"] for item in model["sets"]) for model in models)
    note = (
        f"Part of float32's nDCG@10 that codes of {dimensions} dimensions keep, queries float32 unless said otherwise: "
        f"mean of up to {sets} retrieval sets, in brackets the worst. Intervals and truncations: "
        "`python -m benchmarks show benchmarks/results/codes.json`."
    )
    return [*lines, "", note]


def multi() -> list[str]:
    """What pooled and coded multi-vectors take and keep."""
    results = _results("multi")["results"]
    rows = {(row["pool_factor"], row["precision"]): row for row in results["rows"]}
    factors = list(dict.fromkeys(factor for factor, _ in rows))
    lines = [_row(["`pool_factor`", *MULTI_PRECISIONS]), _row(["---"] + ["--:"] * len(MULTI_PRECISIONS))]
    for factor in factors:
        found = [rows[factor, precision] for precision in MULTI_PRECISIONS]
        cells = [f"{row['retention']:.1%}, {row['bytes_a_document'] / 1000:.1f} kB" for row in found]
        lines.append(_row([str(factor), *cells]))
    single, full = ([item[f"{kind}_vector_ndcg_at_10"] for item in results["sets"]] for kind in ("single", "multi"))
    names = [item["set"] for item in results["sets"]]
    gains = ", ".join(f"{name} {after - before:+.1f}" for name, before, after in zip(names, single, full, strict=True))
    note = (
        f"Part of float32's nDCG@10 that multi-vectors of {results['dimensions']} dimensions keep in the mean of "
        f"{len(names)} sets, and what a document takes; queries float32 and not pooled. Beside single vectors "
        f"multi-vectors bring, in points: {gains}. Intervals: "
        "`python -m benchmarks show benchmarks/results/multi.json`."
    )
    return [*lines, "", note]


def decoder() -> list[str]:
    """What int8 changes in a decoder."""
    results = _results("decoder-smollm2")["results"]
    found = results["variants"]["retrieval-int8"]
    return [
        f"On SmolLM2-135M in the layout of jina-embeddings-v4 with random adapters, {results['texts']} texts in int8: "
        f"cosine {found['cosine_mean']:.5f} to float32, lowest 1 % {found['cosine_p1']:.5f}, of single tokens "
        f"{found['token_cosine_mean']:.5f}; {found['top10_overlap']:.0%} of the ten nearest texts stay."
    ]


def _full(model: dict[str, Any]) -> int:
    return max(int(row["dimensions"]) for row in model["rows"])


def _cpu(file: dict[str, Any]) -> str:
    cpu = file["provenance"]["cpu"]
    return f"{cpu['model']} {'with' if any('vnni' in flag for flag in cpu['flags']) else 'without'} VNNI"


TABLES: Mapping[str, Callable[[], list[str]]] = {
    "variants": variants,
    "peers": peers,
    "decoder peers": decoder_peers,
    "codes": codes,
    "multi": multi,
    "decoder": decoder,
}


def _results(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text("utf-8")))


def _speeds(speed: dict[str, Any], variant: str) -> list[str]:
    rows = {(row["variant"], row["threads"], row["rows"], row["tokens"]): row for row in speed["results"]["shapes"]}
    ratios = [rows[variant, 1, *shape]["speedup_over_fp32"]["median"] for shape in SHAPES]
    return [f"{ratio:.1f}x" for ratio in ratios]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def updated(readme: str) -> str:
    """The README with all tables in place."""
    for name, lines in TABLES.items():
        begin, end = f"<!-- {name}: written by python -m benchmarks.readme -->", f"<!-- {name} end -->"
        before, _, rest = readme.partition(begin)
        _, _, after = rest.partition(end)
        readme = "".join([before, "\n".join([begin, *lines(), end]), after])
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text("utf-8")), "utf-8")
