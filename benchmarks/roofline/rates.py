"""Peak rates of one core of a host: operations by arithmetic, and bytes of a copy loop by its working set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.roofline.work import Work
from benchmarks.speed.peak import NotMeasuredError, best, lines_of_program, measured_peak

SOURCE = Path(__file__).with_name("copy.c")
FLAGS = ("-O3", "-march=native")


@dataclass(frozen=True)
class Rates:
    """Peak rates of a core.

    Attributes:
        operations: operations per second by arithmetic; a multiplication and an addition are two.
        copies: bytes per second, read and written ones together, by the size of the working set in bytes, ascending.
    """

    operations: Mapping[str, float]
    copies: Mapping[int, float]

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Rates:
        """Rates from the results of `measured_rates`."""
        operations = {name: 1e9 * entry["gops"] for name, entry in results["peak_of_a_core"].items()}
        return cls(operations, {int(size): 1e9 * rate for size, rate in results["copy_gb_per_s"].items()})

    def floor_s(self, work: Work, all_weights: float) -> float:
        """Seconds of a node at peak rates: the larger one of the times of its products and of its bytes.

        Activations come from the cache that holds those of the node; weights from the one that holds all of a graph,
        `all_weights` bytes, since a run reads each of them once.
        """
        operations = 0.0 if work.arithmetic is None else 2 * work.products / self.operations[work.arithmetic]
        weights = work.weight_bytes / self._copy_rate(all_weights)
        return max(operations, weights + work.activation_bytes / self._copy_rate(work.activation_bytes))

    def _copy_rate(self, working_set: float) -> float:
        """Highest rate of a working set of at least this size; of the largest one for all that are larger."""
        rates = [rate for size, rate in self.copies.items() if size >= working_set]
        return max(rates) if rates else self.copies[max(self.copies)]


def measured_rates() -> dict[str, Any]:
    """Measure the rates: "peak_of_a_core" as of `measured_peak`, "copy_gb_per_s" by bytes of the working set.

    Raises:
        NotMeasuredError: this host has no C compiler, or the programs do not run on it.
    """
    peaks = best(measured_peak(), measured_peak())
    if "not_measured" in peaks:
        raise NotMeasuredError(f"peak rates are not measured: {peaks['not_measured']}")
    lines = (line.split() for line in lines_of_program(SOURCE, FLAGS))
    return {"peak_of_a_core": peaks, "copy_gb_per_s": {size: float(rate) for size, rate in lines}}
