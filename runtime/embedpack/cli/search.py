"""embedpack search: nearest texts in a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.options import add_pack, add_texts, add_variant, add_vectors, open_embedder, text_file_options
from embedpack.cli.output import add_json, check_output, write_json
from embedpack.cli.parser import whole_number

if TYPE_CHECKING:
    from embedpack.embedder import Embedder
    from embedpack.inputs.text_files import Texts
    from embedpack.vectors.embeddings import Embeddings

SUMMARY = "Search the texts of a file by meaning."
EXAMPLES = """\
  embedpack search packs/minilm notes.txt "where did I park"
  embedpack search packs/minilm docs.jsonl "play music" "edit photos" --precision binary --top-k 3 --json
  embedpack search packs/v4 notes.txt "where did I park" --adapters switchable --task retrieval"""
SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class Hit:
    """A text that was found."""

    id: str
    score: float
    text: str


@dataclass(frozen=True)
class QueryHits:
    """The texts that were found for a query, best first."""

    query: str
    hits: list[Hit]


@dataclass(frozen=True, eq=False)
class Sides:
    """Vectors of the two sides of a search."""

    queries: Embeddings
    documents: Embeddings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument("corpus", metavar="CORPUS", help="file of texts to search; - is standard input")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="text to search for")
    parser.add_argument(
        "-k",
        "--top-k",
        type=whole_number(1),
        default=5,
        metavar="K",
        help="number of results per query (default: %(default)s)",
    )
    add_variant(parser)
    add_vectors(parser)
    add_texts(parser)
    parser.add_argument(
        "--on-empty",
        choices=("error", "skip"),
        default="error",
        help="records whose text is empty or has no token: stop, or leave them out (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Embed a corpus in --precision and queries in float32, and print the best texts for each query."""
    from dataclasses import replace

    from embedpack.inputs.text_files import read_texts
    from embedpack.scoring.exact_search import search

    check_output(options.json, [options.corpus, options.pack], overwrite=options.overwrite)
    _check_queries(options.queries)
    allow_blank = options.on_empty != "error"
    corpus = read_texts(options.corpus, replace(text_file_options(options), allow_blank=allow_blank))
    model = open_embedder(options)
    sides = _encode(model, corpus, options)
    found = search(sides.queries, sides.documents, options.top_k)
    results = []
    for query, rows, scores in zip(options.queries, found.indices, found.scores, strict=True):
        # Empty texts have no row.
        positions = rows if sides.documents.ids is None else [int(sides.documents.ids[row]) for row in rows]
        best = zip(positions, scores, strict=True)
        hits = [Hit(corpus.ids[row], round(float(score), 4), corpus.texts[row]) for row, score in best]
        results.append(QueryHits(query, hits))
    _print(results, options.json)
    return 0


def _check_queries(queries: Sequence[str]) -> None:
    from embedpack.errors import InputError
    from embedpack.inputs.items import is_blank, text_problem

    for query in queries:
        try:
            query.encode("utf-8")
        except UnicodeEncodeError as cause:
            raise InputError("the query is not valid UTF-8; check the encoding of the terminal") from cause
        problem = "is empty; pass a text" if is_blank(query) else text_problem(query)
        if problem is not None:
            raise InputError(f"the query {problem}")


def _encode(model: Embedder, corpus: Texts, options: argparse.Namespace) -> Sides:
    """Vectors of the queries, and of the documents in --precision, each with the prompt of its side."""
    from embedpack.engine.options import EncodeSettings
    from embedpack.errors import ItemError
    from embedpack.inputs.items import Text
    from embedpack.pack.prompts import document_prompt, query_prompt

    tasks = model.pack.manifest.tasks
    task = None if model.task is None else tasks[model.task]  # without one, `encode` raises
    settings = EncodeSettings(
        prompt_name=None if task is None else document_prompt(task),
        truncate_dim=options.truncate_dim,
        precision=options.precision,
        on_empty=options.on_empty,
    )
    work = sum(map(model.stats(None).work_of, (Text(0, text) for text in corpus.texts)))
    try:
        with model.stats(len(corpus.texts), work) as stats:
            stats.ids = corpus.ids
            documents = model.encode_part([*corpus.texts], settings, stats)
    except ItemError as cause:
        raise corpus.located(cause) from cause
    stats.log()
    prompt_name = None if task is None else query_prompt(task)
    return Sides(model.encode(options.queries, prompt_name=prompt_name, truncate_dim=options.truncate_dim), documents)


def _print(results: Sequence[QueryHits], json: Path | None) -> None:
    """Print the hits of each query, or write them as JSON lines."""
    import msgspec

    if json is not None:
        write_json(json, b"\n".join(map(msgspec.json.encode, results)))
        return
    for result in results:
        print(f"\n{result.query}")
        for hit in result.hits:
            print(f"  {hit.score:.4f}  {hit.id}  {' '.join(hit.text.split())[:SHOWN_CHARACTERS]}")
