"""Rows of the speed benchmark's results: figures of a run, with ratios to other runs of the same repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.setup import PeerSetup
from benchmarks.speed.runs import Measurement, Run, cosines, figures, ratios
from benchmarks.spreads import Spread, spread

BASELINE = "fp32"
QUANTIZED = "int8"
# Batchings of embedpack's runs on texts of mixed lengths.
OURS = "embedpack"
FIXED = "64 in order, padded to the longest"
# Batching of a shape with more tokens than its token budget.
IN_PARTS = "parts"
# Arithmetic of most products, by weights format.
ARITHMETIC = {"fp32": "fp32", "int8": "int8", "int4": "int8"}


@dataclass(frozen=True)
class Rows:
    """All measurements, variants by weights format, and the peak of a core, from `measured_peak`.

    `operations` is the number of multiplications and additions of the products of one token, None if not known.
    """

    measured: Mapping[Run, Sequence[Measurement]]
    variants: Mapping[str, str]
    peers: PeerSetup | None
    operations: int | None
    peak: Mapping[str, Any]

    def all(self) -> list[dict[str, Any]]:
        """Rows in the order of the runs, with the key "peer" or "variant"."""
        return [self._row(run, measurements) for run, measurements in self.measured.items()]

    def _row(self, run: Run, measurements: Sequence[Measurement]) -> dict[str, Any]:
        row: dict[str, Any] = {"peer": run.who} if run.is_peer else {"variant": run.who}
        row["threads"] = run.threads
        if run.workload.shape is not None:
            row["rows"], row["tokens"] = run.workload.shape
            row |= {} if run.is_peer else {"in_parts": run.batching == IN_PARTS}
        else:
            row |= {"batching": run.batching, "tokens": run.workload.tokens}
            row |= {"tokens_computed": measurements[0]["tokens_computed"]} if not run.is_peer else {}
        row |= figures(run, measurements)
        baseline = self.same_inputs(run, BASELINE)
        quantized = self.same_inputs(run, QUANTIZED) if run.is_peer else None
        for name, key in (("speedup", "wall_s"), ("cpu_speedup", "cpu_s")):
            row |= _without_none({
                f"{name}_over_{BASELINE}": ratios(baseline, measurements, key),
                f"{QUANTIZED}_{name}": ratios(measurements, quantized, key),
            })  # fmt: skip
        cosine = None if self.peers is None else cosines(run, self.peers.reference[run.workload.name])
        return row | _without_none({"share_of_peak": self._share(run, measurements), "cosine": cosine})

    def same_inputs(self, run: Run, weights: str) -> Sequence[Measurement] | None:
        """Measurements of the same inputs in a variant of the pack; None if it has no such variant.

        A peer is compared with the batches of `Embedder`, a variant with the same batches.
        """
        wanted = (self.variants.get(weights), run.workload, run.threads)
        found = {
            other.batching: measurements
            for other, measurements in self.measured.items()
            if not other.is_peer and (other.who, other.workload, other.threads) == wanted
        }
        batchings = ((OURS,) if run.batching else (IN_PARTS, "")) if run.is_peer else (run.batching,)
        return next((found[batching] for batching in batchings if batching in found), None)

    def _share(self, run: Run, measurements: Sequence[Measurement]) -> Spread | None:
        """Share of the operations that the cores could do in the CPU time used; attention's products do not count."""
        peak = self.peak.get(self._arithmetic(run))
        if peak is None or self.operations is None or run.workload.shape is None:
            return None
        cpu_s_at_peak = self.operations * run.workload.tokens / (1e9 * peak["gops"])
        return spread([cpu_s_at_peak / each["cpu_s"] for each in measurements])

    def _arithmetic(self, run: Run) -> str:
        if run.is_peer:
            assert self.peers is not None
            return next(peer.arithmetic for peer in self.peers.peers if peer.name == run.who)
        return next(ARITHMETIC[weights] for weights, name in self.variants.items() if name == run.who)


def _without_none(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
