"""Results file of the roofline from another host: its rates, and its times."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.roofline.rates import Rates
from benchmarks.speed.workloads import Shape
from embedpack.errors import InputError


class _Peak(msgspec.Struct):
    gops: float


class _Rates(msgspec.Struct):
    peak_of_a_core: dict[str, _Peak]
    copy_gb_per_s: dict[int, float]


class _Measured(msgspec.Struct):
    rows: int
    tokens: int
    cpu_s: float | None


class _Results(msgspec.Struct):
    fingerprint: str
    variant: str
    rates: _Rates
    shapes: list[_Measured]


class _Cpu(msgspec.Struct):
    model: str


class _Provenance(msgspec.Struct):
    cpu: _Cpu


class _Report(msgspec.Struct):
    benchmark: str
    provenance: _Provenance
    results: _Results


class Host(msgspec.Struct, frozen=True):
    """Another host: model of its CPU, peak rates, and CPU seconds of a run by shape, of the same graph."""

    cpu: str
    rates: Rates
    cpu_s: dict[Shape, float | None]


def read_host(path: Path, fingerprint: str, variant: str) -> Host:
    """Read a results file; times of another pack or variant are left out.

    Raises:
        InputError: the file cannot be read, or is none of this benchmark.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=_Report)
    except (OSError, msgspec.MsgspecError) as cause:
        raise InputError(f"--host {path}: this is no results file of the roofline: {cause}") from cause
    if report.benchmark != "roofline":
        raise InputError(f"--host {path}: these are results of the benchmark {report.benchmark!r}, not of roofline")
    results = report.results
    operations = {name: 1e9 * peak.gops for name, peak in results.rates.peak_of_a_core.items()}
    copies = {size: 1e9 * rate for size, rate in results.rates.copy_gb_per_s.items()}
    if not copies or not {"int8", "fp32"} <= operations.keys() or min(*operations.values(), *copies.values()) <= 0:
        raise InputError(f"--host {path}: rates of int8, fp32 and copies must be above 0; measure them again")
    same = (results.fingerprint, results.variant) == (fingerprint, variant)
    times = {(row.rows, row.tokens): row.cpu_s for row in results.shapes} if same else {}
    return Host(report.provenance.cpu.model, Rates(operations, copies), times)
