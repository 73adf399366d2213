"""Writes the README's results table from the results files: python -m benchmarks.readme."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BEGIN = "<!-- results: written by python -m benchmarks.readme -->"
END = "<!-- results end -->"
SHAPES = ((1, 16), (32, 128))


def render() -> str:
    """The block between the markers."""
    accuracy, speed, footprint = (_results(name) for name in ("accuracy", "speed", "footprint"))
    sizes = {item["variant"]: item["weights_bytes"] / 1e6 for item in footprint["results"]["variants"]}
    (sets,) = accuracy["results"]["tasks"].values()
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
    cpu = speed["provenance"]["cpu"]
    flags = "with VNNI" if any("vnni" in flag for flag in cpu["flags"]) else "without VNNI"
    note = (
        "all-MiniLM-L6-v2 with the default retrieval adapter. nDCG@10 in points, in brackets the difference to torch; "
        "the lowest 1 % of cosines in the worst set. Last columns: times as fast as fp32 for batches of texts x "
        f"tokens, one thread of {cpu['model']} {flags}. Files: `benchmarks/results/`."
    )
    return "\n".join([BEGIN, *lines, "", note, END])


def _results(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text("utf-8")))


def _speeds(speed: dict[str, Any], variant: str) -> list[str]:
    rows = {(row["variant"], row["threads"], row["rows"], row["tokens"]): row for row in speed["results"]["shapes"]}
    ratios = [rows[variant, 1, *shape]["speedup_over_fp32"]["median"] for shape in SHAPES]
    return [f"{ratio:.1f}x" for ratio in ratios]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def updated(readme: str) -> str:
    """The README with the block in place."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + render() + after


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text("utf-8")), "utf-8")
