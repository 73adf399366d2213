"""What measurements of speed say: a row of figures for each, with its ratios to others of the same repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.contest import Contest
from benchmarks.speed.runs import Found, Run, cosines, figures, ratios
from benchmarks.spreads import spread

BASELINE = "fp32"
QUANTIZED = "int8"
# How texts of mixed lengths are batched by the two ways of ours.
OURS = "embedpack"
FIXED = "64 in order, padded to the longest"
# In which kind of products our formats spend their time.
ARITHMETIC = {"fp32": "fp32", "int8": "int8", "int4": "int8"}


@dataclass(frozen=True)
class Rows:
    """All measurements of a run.

    Attributes:
        measured: what was found, by run.
        variants: our variants by their weights.
        contest: the peers, if there are any.
        operations: multiplications and additions of the products of one token; None: not known.
        peak: what a core can do, as `measured_peak` says.
    """

    measured: Mapping[Run, Sequence[Found]]
    variants: Mapping[str, str]
    contest: Contest | None
    operations: int | None
    peak: Mapping[str, Any]

    def all(self) -> list[dict[str, Any]]:
        """Rows in the order of the runs; those of peers have a "peer", ours a "variant"."""
        return [self._row(run, found) for run, found in self.measured.items()]

    def _row(self, run: Run, found: Sequence[Found]) -> dict[str, Any]:
        row: dict[str, Any] = {"peer": run.who} if run.is_peer else {"variant": run.who}
        row["threads"] = run.threads
        if run.workload.shape is not None:
            row["rows"], row["tokens"] = run.workload.shape
        else:
            row |= {"batching": run.batching, "tokens": run.workload.tokens}
            row |= {"tokens_computed": found[0]["tokens_computed"]} if not run.is_peer else {}
        row |= figures(run, found)
        for name, key in (("speedup", "wall_s"), ("cpu_speedup", "cpu_s")):
            row |= _without_none({
                f"{name}_over_{BASELINE}": ratios(self._partner(run, BASELINE), found, key),
                f"{QUANTIZED}_{name}": ratios(found, self._partner(run, QUANTIZED), key) if run.is_peer else None,
            })  # fmt: skip
        return row | _without_none({"share_of_peak": self._share(run, found), "cosine": self._cosine(run)})

    def _partner(self, run: Run, weights: str) -> Sequence[Found] | None:
        """What the same inputs took in one of our variants; None where the pack has no such variant."""
        batching = OURS if run.is_peer and run.batching else run.batching
        wanted = (self.variants.get(weights), run.workload, run.threads, batching)
        for other, found in self.measured.items():
            if not other.is_peer and (other.who, other.workload, other.threads, other.batching) == wanted:
                return found
        return None

    def _share(self, run: Run, found: Sequence[Found]) -> dict[str, float] | None:
        """Of what the cores could have computed in the CPU time that was used; attention's products do not count."""
        peak = self.peak.get(self._arithmetic(run))
        if peak is None or self.operations is None or run.workload.shape is None:
            return None
        needed = self.operations * run.workload.tokens / (1e9 * peak["gops"])
        return spread([needed / item["cpu_s"] for item in found])

    def _arithmetic(self, run: Run) -> str:
        if run.is_peer:
            assert self.contest is not None
            return next(peer.arithmetic for peer in self.contest.peers if peer.name == run.who)
        return next(ARITHMETIC[weights] for weights, name in self.variants.items() if name == run.who)

    def _cosine(self, run: Run) -> dict[str, float] | None:
        return None if self.contest is None else cosines(run, self.contest.reference[run.workload.name])


def _without_none(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
