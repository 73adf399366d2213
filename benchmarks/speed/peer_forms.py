"""Programs of the speed benchmark in their fastest form, and the other forms next to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.catalogue import PEERS
from benchmarks.speed.workloads import Shape

# Lowest mean cosine with torch of a form that can be a program's best: below it, it computes another model.
MIN_COSINE = 0.97


@dataclass(frozen=True)
class Form:
    """Results of a program in one form.

    Attributes:
        program, form, remark: see `Peer`.
        cpu_s: median CPU seconds of a call by shape.
        speedups: CPU time relative to embedpack's int8, by shape; with the key None for mixed lengths.
        cosine: mean cosine with torch at the worst shape.
        lowest: lowest cosine with torch.
    """

    program: str
    form: str
    remark: str
    cpu_s: Mapping[Shape, float]
    speedups: Mapping[Shape | None, float]
    cosine: float
    lowest: float

    @property
    def mean_s(self) -> float:
        """Geometric mean of its CPU times."""
        return math.exp(sum(map(math.log, self.cpu_s.values())) / len(self.cpu_s))


def forms_of(results: Mapping[str, Any]) -> list[Form]:
    """Forms that were measured at all shapes, from the results of the speed benchmark with peers."""
    peers = results["peers"]
    remarks = {peer.name: peer.remark for peer in PEERS}
    shapes = {(row["rows"], row["tokens"]) for row in peers["shapes"]}
    forms = []
    for name, facts in peers["peers"].items():
        rows = {(row["rows"], row["tokens"]): row for row in peers["shapes"] if row["peer"] == name}
        if rows.keys() != shapes:
            continue
        mixed = [row for row in peers["mixed"] if row["peer"] == name]
        cosines = [row["cosine"] for row in (*rows.values(), *mixed)]
        speedups: dict[Shape | None, float] = {shape: _speedup(row) for shape, row in rows.items()}
        forms.append(
            Form(
                facts["program"],
                facts["form"],
                remarks.get(name, ""),
                {shape: row["cpu_s"]["median"] for shape, row in rows.items()},
                speedups if not mixed else speedups | {None: _speedup(mixed[0])},
                min(cosine["mean"] for cosine in cosines),
                min(cosine["min"] for cosine in cosines),
            )
        )
    return forms


def _speedup(row: Mapping[str, Any]) -> float:
    return float(row["int8_cpu_speedup"]["median"])


def best_forms(forms: Sequence[Form]) -> dict[str, Form]:
    """Fastest form of each program of those with MIN_COSINE, or of all if none has it."""
    programs = dict.fromkeys(form.program for form in forms)
    best = {}
    for program in programs:
        of_program = [form for form in forms if form.program == program]
        close = [form for form in of_program if form.cosine >= MIN_COSINE]
        best[program] = min(close or of_program, key=lambda form: form.mean_s)
    return best


def best_rows(forms: Sequence[Form]) -> list[list[str]]:
    """Header and a row for each program in its best form: CPU time relative to embedpack's int8, lowest cosine."""
    best = best_forms(forms)
    fixed = sorted({shape for form in forms for shape in form.cpu_s})
    columns: dict[Shape | None, str] = {(rows, tokens): f"{rows}x{tokens}" for rows, tokens in fixed}
    if any(None in form.speedups for form in best.values()):
        columns[None] = "mixed lengths"
    header = ["int8 compared with", *columns.values(), "program's lowest cosine"]
    rows = []
    for program, form in best.items():
        cells = [f"{form.speedups[shape]:.2f}x" if shape in form.speedups else "" for shape in columns]
        rows.append([f"{program}: {form.form}" if form.form else program, *cells, f"{form.lowest:.4f}"])
    return [header, *rows]


def form_rows(forms: Sequence[Form]) -> list[list[str]]:
    """Header and a row for each form of programs with several: CPU time next to the best form, cosines, reason."""
    best = best_forms(forms)
    rows = [["program", "form", "CPU time next to the best form", "cosine: mean, lowest", "remark"]]
    for form in forms:
        if sum(other.program == form.program for other in forms) > 1:
            ratio = form.mean_s / best[form.program].mean_s
            cells = [f"{ratio:.2f}", f"{form.cosine:.4f}, {form.lowest:.4f}", form.remark]
            rows.append([form.program, form.form, *cells])
    return rows
