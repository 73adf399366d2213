"""embedpack rerank: texts of a file in the order of their scores for a query."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from embedpack.cli.hits import SCORE_DIGITS, Hit, QueryHits, check_queries, write_hits
from embedpack.cli.options import add_pack, add_texts, add_variant, text_file_options
from embedpack.cli.output import add_json, check_output
from embedpack.cli.parser import whole_number

if TYPE_CHECKING:
    from embedpack.inputs.text_files import Texts
    from embedpack.reranker import Reranker
    from embedpack.vectors.arrays import Float32

SUMMARY = "Score the texts of a file for a query with a reranker, best first."
EXAMPLES = """\
  embedpack rerank packs/reranker "where did I park" notes.txt
  embedpack rerank packs/reranker "play music" docs.jsonl --top-n 3 --json
  embedpack rerank packs/reranker "play music" docs.jsonl --weights fp32 --on-long error"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument("query", metavar="QUERY", help="text that the others are scored for")
    parser.add_argument("documents", metavar="FILE", help="file of texts to score; - is standard input")
    parser.add_argument(
        "-n", "--top-n", type=whole_number(1), metavar="N", help="number of results (default: all texts)"
    )
    add_variant(parser)
    add_texts(parser)
    parser.add_argument(
        "--on-long",
        choices=("truncate", "error"),
        default="truncate",
        help="texts that are too long with the query: cut, or stop (default: %(default)s)",
    )
    parser.add_argument(
        "--on-empty",
        choices=("error", "skip"),
        default="error",
        help="records whose text is empty: stop, or leave them out (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Score the texts and print the best."""
    from dataclasses import replace

    from embedpack.inputs.text_files import read_texts
    from embedpack.reranker import Reranker, ranked

    check_output(options.json, [options.documents, options.pack], overwrite=options.overwrite)
    check_queries([options.query])
    allow_blank = options.on_empty == "skip"
    documents = read_texts(options.documents, replace(text_file_options(options), allow_blank=allow_blank))
    model = Reranker(
        options.pack,
        task=options.task,
        weights=options.weights,
        adapters=options.adapters,
        variant=options.variant,
        threads=options.threads,
        device=options.device,
    )
    rows = present(documents)
    found = ranked(score_rows(model, options.query, documents, rows, options.on_long), options.top_n)
    hits = [
        Hit(documents.ids[rows[item.index]], round(item.score, SCORE_DIGITS), documents.texts[rows[item.index]])
        for item in found
    ]
    write_hits([QueryHits(options.query, hits)], options.json)
    return 0


def present(texts: Texts) -> list[int]:
    """Rows of the texts that are not blank; InputError if there are none."""
    from embedpack.errors import InputError
    from embedpack.inputs.items import is_blank
    from embedpack.inputs.pair_texts import NO_DOCUMENTS

    rows = [row for row, text in enumerate(texts.texts) if not is_blank(text)]
    if not rows:
        raise InputError(f"{texts.source}: {NO_DOCUMENTS}")
    return rows


def score_rows(model: Reranker, query: str, texts: Texts, rows: list[int], on_long: str = "truncate") -> Float32:
    """Scores of some texts of a file, float32 [rows]; errors have the place of the text in the file."""
    from embedpack.engine.options import ScoreSettings
    from embedpack.errors import ItemError

    settings = ScoreSettings(on_long="error" if on_long == "error" else "truncate")
    try:
        with model.stats(len(rows)) as stats:
            stats.ids = [texts.ids[row] for row in rows]
            scores = model.score_part(query, [texts.texts[row] for row in rows], settings, stats)
    except ItemError as cause:
        raise texts.located(ItemError("text", rows[cause.number], cause.problem)) from cause
    stats.log()
    return scores
