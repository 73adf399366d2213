"""Late chunking: does a chunk's vector find the chunk better if it was computed in the context of its document?"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack import Embedder, InputError, similarity
from embedpack.engine.options import EncodeSettings
from embedpack.inputs.documents import Document
from embedpack.inputs.splitting import Splitting
from embedpack.inputs.text_files import TextFileOptions, read_texts
from embedpack.pack.prompts import document_prompt, query_prompt
from embedpack.vectors.embeddings import Embeddings
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.bootstrap import interval, resampled_means, set_generator

SUMMARY = "nDCG@10 of chunks that are encoded late, compared with chunks that are encoded alone."
EXAMPLES = """\
  python -m benchmarks late-chunking packs/minilm packs/e5 --data data/eval/long
  python -m benchmarks late-chunking packs/minilm --data data/eval/long --documents 10 --name short"""

SETS = ("covidqa-long", "jaquad-articles-ja")
# Lengths of chunks in tokens; 0: sentences.
LENGTHS = (0, 128)
TOP = 10

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Question:
    """A query with the place of its answer in a document."""

    text: str
    document: str
    begin: int
    end: int


@dataclass(frozen=True)
class AnswerSet:
    """Documents by id, and questions about them."""

    name: str
    documents: Mapping[str, str]
    questions: Sequence[Question]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("packs", nargs="+", type=Path, metavar="PACK", help="packs with late chunking")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the sets, with spans.tsv")
    parser.add_argument("--task", help="task of packs with several")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--documents", type=int, metavar="N", help="only the first N documents of each set")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every pack on every set with every length of chunks.

    Raises:
        InputError: an option, a set or a pack cannot be used.
    """
    sets = [read_answer_set(options.data / name, options.documents) for name in options.sets or SETS]
    rows = []
    for pack in options.packs:
        with Embedder(pack, task=options.task, threads=options.threads) as model:
            for answers in sets:
                logger.info("%s: %s", pack, answers.name)
                rows += _measure(model, answers, options.seed)
    return {"documents": options.documents, "rows": rows}


def read_answer_set(folder: Path, limit: int | None) -> AnswerSet:
    """Read `corpus.jsonl.gz`, `queries.jsonl.gz` and `spans.tsv` of a folder, at most `limit` documents.

    Raises:
        InputError: a file is missing, or has no place of an answer in these documents.
    """
    corpus, queries = (
        read_texts(str(folder / f"{name}.jsonl.gz"), TextFileOptions()) for name in ("corpus", "queries")
    )
    documents = dict(zip(corpus.ids[:limit], corpus.texts[:limit], strict=True))
    texts = dict(zip(queries.ids, queries.texts, strict=True))
    try:
        with (folder / "spans.tsv").open(encoding="utf-8", newline="") as stream:
            spans = list(csv.DictReader(stream, delimiter="\t"))
    except OSError as cause:
        raise InputError(f"{folder / 'spans.tsv'}: {cause.strerror}; it has the place of each answer") from cause
    questions = [
        Question(texts[row["query-id"]], row["corpus-id"], int(row["start"]), int(row["end"]))
        for row in spans
        if row["corpus-id"] in documents
    ]
    if not questions:
        raise InputError(f"{folder / 'spans.tsv'}: no answer is in these documents; pass more of them")
    return AnswerSet(folder.name, documents, questions)


def _measure(model: Embedder, answers: AnswerSet, seed: int) -> list[dict[str, Any]]:
    """Scores of one model on one set."""
    assert model.task is not None
    task = model.pack.manifest.tasks[model.task]
    asked = [question.text for question in answers.questions]
    queries = model.encode(asked, prompt_name=query_prompt(task))
    settings = EncodeSettings(prompt_name=document_prompt(task), late_chunking=True)
    rows = []
    for length in LENGTHS:
        documents = model.split(list(answers.documents.values()), Splitting(length or None))
        gold = gold_chunks(documents, list(answers.documents), answers.questions)
        with model.stats(sum(map(len, documents))) as stats:
            late = model.encode_chunks_part(documents, settings, stats)
        chunks = [document.text[begin:end] for document in documents for begin, end in document.spans]
        alone = model.encode(chunks, prompt_name=document_prompt(task))
        figures = np.stack([ndcg(queries, vectors, gold) for vectors in (alone, late)], axis=1)
        rows.append(_row(model, answers, length, len(chunks), figures, seed))
    return rows


def gold_chunks(documents: Sequence[Document], names: Sequence[str], questions: Sequence[Question]) -> list[int]:
    """Position of the chunk that shares most characters with the answer of each question, the first of several."""
    first = np.cumsum([0, *map(len, documents)])
    found = []
    for question in questions:
        row = names.index(question.document)
        begins, ends = documents[row].spans.T
        shared = np.minimum(ends, question.end) - np.maximum(begins, question.begin)
        found.append(int(first[row] + shared.argmax()))
    return found


def ndcg(queries: Embeddings, chunks: Embeddings, gold: Sequence[int]) -> npt.NDArray[np.float64]:
    """nDCG@10 of each query in points, with one relevant chunk; equal scores rank in the order of the chunks."""
    figures = np.zeros(len(gold))
    for row, relevant in enumerate(gold):
        scores = similarity(queries[row], chunks)[0]
        rank = int((scores > scores[relevant]).sum() + (scores[:relevant] == scores[relevant]).sum())
        figures[row] = 100 / np.log2(rank + 2) if rank < TOP else 0.0
    return figures


def _row(
    model: Embedder, answers: AnswerSet, length: int, chunks: int, figures: npt.NDArray[np.float64], seed: int
) -> dict[str, Any]:
    alone, late = figures.mean(0)
    generator = set_generator(f"{answers.name}/{length}", seed)
    low, high = interval(resampled_means(figures[:, 1:] - figures[:, :1], generator)[:, 0])
    return {
        "model": model.pack.manifest.name,
        "variant": model.variant,
        "set": answers.name,
        "documents": len(answers.documents),
        "questions": len(answers.questions),
        "chunk_tokens": length or None,
        "chunks": chunks,
        "alone": round(float(alone), 2),
        "late": round(float(late), 2),
        "difference": round(float(late - alone), 2),
        "interval_95": [round(low, 2), round(high, 2)],
    }


def document_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table in docs/accuracy.md."""
    return [
        [
            f"{row['model']}, {row['set']}, {row['documents']}",
            "sentence" if row["chunk_tokens"] is None else f"{row['chunk_tokens']} tokens",
            str(row["chunks"]),
            f"{row['alone']:.2f}",
            f"{row['late']:.2f}",
            f"{row['difference']:+.2f} [{row['interval_95'][0]:+.2f}, {row['interval_95'][1]:+.2f}]",
        ]
        for row in results["rows"]
    ]


def document_note(results: Sequence[Mapping[str, Any]]) -> str:
    """Conditions and outcome of the table in docs/accuracy.md."""
    rows = [row for each in results for row in each["rows"]]
    counts = dict.fromkeys(
        f"{row['questions']} questions about {row['documents']} documents of {row['set']}" for row in rows
    )
    better = sum(row["interval_95"][0] > 0 for row in rows)
    worse = sum(row["interval_95"][1] < 0 for row in rows)
    return (
        "nDCG@10 in points, int8: a question finds the chunk that holds its answer, among the chunks of all documents; "
        "chunks encoded alone, or late, in the context of their document; difference with its 95 % interval over "
        f"questions. {'; '.join(counts)}. Of {len(rows)} rows, late chunking is better beyond the interval in "
        f"{better}, worse in {worse}. Files: `benchmarks/results/`."
    )


HEADER = ["model, set, documents", "chunk", "chunks", "alone", "late", "difference"]


def table(results: Mapping[str, Any]) -> str:
    """Format the scores of all packs, sets and lengths."""
    return text_table(HEADER, document_rows(results))
