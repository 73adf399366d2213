"""Counts of outcomes as a results file, and as the table of docs/security.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from embedpack_export.evaluation.provenance import provenance
from tests.fuzz.outcome import OUTCOMES, Result
from tests.fuzz.worker import Limits

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
RESULTS = Path(__file__).parent / "results.json"
BEGIN, END = "<!-- fuzz: written by python -m tests.fuzz -->", "<!-- fuzz end -->"
# Libraries that read the inputs.
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "msgspec", "onnx", "pillow", "pypdfium2")


@dataclass(frozen=True)
class Run:
    """A run of the fuzzers: its counts by fuzzer and outcome, and its provenance."""

    counts: Mapping[str, Mapping[str, int]]
    seconds: int
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, results: Iterable[Result], seed: int, seconds: float) -> Self:
        """Count the results of a run."""
        counts: dict[str, dict[str, int]] = {}
        for result in results:
            of_fuzzer = counts.setdefault(result.case.fuzzer, dict.fromkeys(OUTCOMES, 0))
            of_fuzzer[result.outcome] += 1
        made = provenance(1, seed)
        return cls(counts, round(seconds), made | {"packages": {name: version(name) for name in PACKAGES}})

    @classmethod
    def read(cls) -> Self:
        """The run of the results file."""
        return cls(**json.loads(RESULTS.read_text("utf-8")))

    def table(self) -> list[str]:
        """Lines of a table in Markdown with a row for each fuzzer, and its provenance."""
        header = ["input", "tried", *OUTCOMES]
        total: Counter[str] = sum((Counter(of_fuzzer) for of_fuzzer in self.counts.values()), Counter())
        rows = [_row(name, of_fuzzer) for name, of_fuzzer in self.counts.items()]
        lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows, _row("all", total)]
        return [*(f"| {' | '.join(line)} |" for line in lines), "", self._note()]

    def _note(self) -> str:
        made = self.provenance
        commit = f"{str(made['git']['commit'])[:12]}{' with changes' if made['git']['dirty'] else ''}"
        versions = ", ".join(f"{name} {number}" for name, number in made["packages"].items())
        return (
            f"Seed {made['seed']}, {self.seconds} seconds on {made['cpu']['cores']} cores of {made['cpu']['model']}, "
            f"commit {commit}, Python {made['python']}, {versions}. *hang*: more than "
            f"{Limits.seconds} seconds of CPU time or {Limits.memory / 1e9:.1f} GB of memory for one input; *wrong*: "
            "accepted, but vectors are not finite, not of length 1, depend on the batch or differ from those of the "
            "sound file."
        )


def _row(name: str, counts: Mapping[str, int]) -> list[str]:
    return [name, str(sum(counts.values())), *(str(counts[outcome]) for outcome in OUTCOMES)]


def updated(document: str, run: Run) -> str:
    """The document with the table of a run.

    Raises:
        ValueError: it has no place for the table.
    """
    block = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    text, replaced = block.subn(lambda _: "\n".join([BEGIN, *run.table(), END]), document)
    if replaced != 1:
        raise ValueError(f"{DOCUMENT.name}: the lines {BEGIN} and {END} are missing")
    return text


def write_results(run: Run) -> None:
    """Write the results file and the document."""
    RESULTS.write_text(json.dumps(asdict(run), indent=1) + "\n", "utf-8")
    DOCUMENT.write_text(updated(DOCUMENT.read_text("utf-8"), run), "utf-8")
