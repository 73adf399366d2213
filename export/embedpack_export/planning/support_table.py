"""Table of the models that can be exported: licence, size, family, outputs, tests.

python -m embedpack_export.planning.support_table docs/models.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

from embedpack.errors import InputError
from embedpack.pack.strict import AdapterMode
from embedpack_export.families.known_models import KNOWN_MODELS, KnownModel
from embedpack_export.graph.formats.by_name import linear_formats

START = "<!-- models: written by python -m embedpack_export.planning.support_table docs/models.md -->"
END = "<!-- models end -->"


def ordered() -> list[KnownModel]:
    """The models, those with permissive licences first, then by size."""
    return sorted(KNOWN_MODELS, key=lambda model: (not model.permissive, model.parameters, model.name))


def markdown() -> str:
    """The table in Markdown, below what all families have in common."""
    adapters, weights = " or ".join(get_args(AdapterMode)), ", ".join(linear_formats("rtn", "cpu"))
    head = ["model", "licence", "million parameters", "family", "outputs", "tested", "notes"]
    lines = [_line(cells) for cells in (head, ["---", "---", "--:", *["---"] * 4], *map(_cells, ordered()))]
    return "\n".join([f"Adapters of every family are {adapters}; its weights formats are {weights}.", "", *lines])


def _cells(model: KnownModel) -> list[str]:
    tested = "layout" if model.results is None else f"weights: `benchmarks/results/{model.results}`"
    outputs = ", ".join(model.outputs)
    return [f"`{model.name}`", model.license, str(model.parameters), model.family, outputs, tested, model.note]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def updated(text: str) -> str:
    """The text of the page with its table written anew; InputError without the lines around it."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise InputError(f"the lines {START} and {END} are missing")
    return f"{before}{START}\n\n{markdown()}\n\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(updated(page.read_text("utf-8")), "utf-8")
