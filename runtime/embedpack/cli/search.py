"""embedpack search: nearest texts in a file."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.hits import SCORE_DIGITS, Hit, QueryHits, check_queries, write_hits
from embedpack.cli.options import add_pack, add_texts, add_variant, add_vectors, open_embedder, text_file_options
from embedpack.cli.output import add_json, check_output
from embedpack.cli.parser import whole_number
from embedpack.cli.rerank import score_rows

if TYPE_CHECKING:
    from embedpack.embedder import Embedder
    from embedpack.inputs.text_files import Texts
    from embedpack.reranker import Reranker
    from embedpack.scoring.exact_search import Hits
    from embedpack.vectors.embeddings import Embeddings
    from embedpack.vectors.multi_embeddings import MultiEmbeddings

SUMMARY = "Search the texts of a file by meaning."
EXAMPLES = """\
  embedpack search packs/minilm notes.txt "where did I park"
  embedpack search packs/minilm docs.jsonl "play music" "edit photos" --precision binary --top-k 3 --json
  embedpack search packs/minilm notes.txt "where did I park" --rerank packs/reranker --candidates 20
  embedpack search packs/v4 notes.txt "where did I park" --adapters switchable --task retrieval"""
# Texts that a reranker scores for each query.
CANDIDATES = 50


@dataclass(frozen=True)
class Scored:
    """A row of the corpus with its score."""

    row: int
    score: float


@dataclass(frozen=True, eq=False)
class Sides:
    """Vectors of the two sides of a search."""

    queries: Embeddings | MultiEmbeddings
    documents: Embeddings | MultiEmbeddings

    def nearest(self, k: int) -> Hits:
        """The k best documents of each query, by similarity or by MaxSim."""
        from embedpack.scoring.exact_search import search
        from embedpack.scoring.late_interaction import search_multi
        from embedpack.vectors.multi_embeddings import MultiEmbeddings

        if isinstance(self.queries, MultiEmbeddings) and isinstance(self.documents, MultiEmbeddings):
            return search_multi(self.queries, self.documents, k)
        assert not isinstance(self.queries, MultiEmbeddings)
        assert not isinstance(self.documents, MultiEmbeddings)
        return search(self.queries, self.documents, k)


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
    parser.add_argument(
        "--rerank", type=Path, metavar="PACK", help="pack of a reranker that orders the nearest texts of each query"
    )
    parser.add_argument(
        "--candidates",
        type=whole_number(1),
        metavar="N",
        help=f"number of texts that --rerank scores per query (default: {CANDIDATES}, at least --top-k)",
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

    check_output(options.json, [options.corpus, options.pack], overwrite=options.overwrite)
    check_queries(options.queries)
    allow_blank = options.on_empty != "error"
    corpus = read_texts(options.corpus, replace(text_file_options(options), allow_blank=allow_blank))
    ranker, model = _open_ranker(options), open_embedder(options)
    sides = _encode(model, corpus, options)
    wanted = options.top_k if ranker is None else max(options.top_k, options.candidates or CANDIDATES)
    found = sides.nearest(wanted)
    results = []
    for query, rows, scores in zip(options.queries, found.indices, found.scores, strict=True):
        # Empty texts have no row.
        positions = [int(row if sides.documents.ids is None else sides.documents.ids[row]) for row in rows]
        best = [Scored(row, float(score)) for row, score in zip(positions, scores, strict=True)]
        if ranker is not None:
            best = _reranked(ranker, query, corpus, positions)
        hits = [
            Hit(corpus.ids[item.row], round(item.score, SCORE_DIGITS), corpus.texts[item.row])
            for item in best[: options.top_k]
        ]
        results.append(QueryHits(query, hits))
    write_hits(results, options.json)
    return 0


def _open_ranker(options: argparse.Namespace) -> Reranker | None:
    """The reranker of --rerank; OptionError for --candidates without it."""
    from embedpack.errors import OptionError

    if options.rerank is None:
        if options.candidates is not None:
            raise OptionError("--candidates goes with --rerank PACK; leave it out")
        return None
    from embedpack.reranker import Reranker

    return Reranker(options.rerank, threads=options.threads, device=options.device)


def _reranked(ranker: Reranker, query: str, corpus: Texts, rows: list[int]) -> list[Scored]:
    """Texts of the corpus by the scores of the reranker, best first."""
    from embedpack.reranker import ranked

    return [Scored(rows[item.index], item.score) for item in ranked(score_rows(ranker, query, corpus, rows))]


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
    multi = model.pack.manifest.single is None
    encode_part = model.encode_multi_part if multi else model.encode_part
    work = sum(map(model.stats(None).work_of, (Text(0, text) for text in corpus.texts)))
    try:
        with model.stats(len(corpus.texts), work) as stats:
            stats.ids = corpus.ids
            documents = encode_part([*corpus.texts], settings, stats)
    except ItemError as cause:
        raise corpus.located(cause) from cause
    stats.log()
    prompt_name = None if task is None else query_prompt(task)
    encode = model.encode_multi if multi else model.encode
    return Sides(encode(options.queries, prompt_name=prompt_name, truncate_dim=options.truncate_dim), documents)
