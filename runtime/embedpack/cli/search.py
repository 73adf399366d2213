"""embedpack search: nearest texts in a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from embedpack.cli.options import add_json, add_pack, add_texts, add_variant, add_vectors, open_embedder, text_options

if TYPE_CHECKING:
    from embedpack.embedder import Embedder

SUMMARY = "Search the texts of a file by meaning."
EXAMPLES = """\
  embedpack search packs/minilm notes.txt "where did I park"
  embedpack search packs/minilm docs.jsonl "play music" "edit photos" --precision binary --top-k 3 --json
  embedpack search packs/v4 notes.txt "where did I park" --adapters switchable --task retrieval"""
SHOWN_CHARACTERS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument("corpus", metavar="CORPUS", help="texts to search; - is standard input")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="text to search for")
    parser.add_argument(
        "--top-k", type=int, default=5, metavar="K", help="number of results per query (default: %(default)s)"
    )
    add_variant(parser)
    add_vectors(parser)
    add_texts(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Embed a corpus in --precision and queries in float32, and print the best texts for each query."""
    import msgspec

    from embedpack.errors import InputError
    from embedpack.inputs.text_files import read_texts
    from embedpack.scoring.exact_search import search

    if options.top_k < 1:
        raise InputError(f"--top-k is {options.top_k}; it must be at least 1")
    corpus = read_texts(options.corpus, text_options(options))
    model = open_embedder(options)
    documents = model.encode(
        corpus.texts,
        prompt_name=_prompt_name(model, "passage"),
        truncate_dim=options.truncate_dim,
        precision=options.precision,
    )
    queries = model.encode(options.queries, prompt_name=_prompt_name(model, "query"), truncate_dim=options.truncate_dim)
    nearest = search(queries, documents, options.top_k)
    for query, rows, scores in zip(options.queries, nearest.indices, nearest.scores, strict=True):
        hits = [
            {"id": corpus.ids[row], "score": round(float(score), 4), "text": corpus.texts[row]}
            for row, score in zip(rows, scores, strict=True)
        ]
        if options.json:
            print(msgspec.json.encode({"query": query, "hits": hits}).decode())
        else:
            print(f"\n{query}")
            for hit in hits:
                print(f"  {hit['score']:.4f}  {hit['id']}  {' '.join(str(hit['text']).split())[:SHOWN_CHARACTERS]}")
    return 0


def _prompt_name(model: Embedder, wanted: str) -> str | None:
    """Name of the prompt `wanted`, or of the default; None without a task, for which `encode` raises."""
    return None if model.task is None else model.pack.manifest.tasks[model.task].prompt_name(wanted)
