"""Encode benchmark: `Embedder.encode` of one query and of many texts; what a call spends outside the graph."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.arguments import add_number, add_pack, add_variant, variant_of
from benchmarks.fresh_process import in_fresh_process
from benchmarks.jobs import Job
from benchmarks.retrieval_sets import read_retrieval_sets
from benchmarks.spreads import cell, spread
from benchmarks.timing import Timing, once
from embedpack import Embedder
from embedpack.engine.session import Adapter, Array, Feeds, Session
from embedpack.errors import InputError
from embedpack.host.cores import available_cores
from embedpack.pack.folder import read_pack
from embedpack.pack.prompts import query_prompt
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Time of encode for one query and for many texts, and the share outside the graph."
EXAMPLES = """\
  python -m benchmarks encode packs/minilm --data eval
  python -m benchmarks encode packs/minilm --data eval --set xquad-en --repetitions 3 --name quick"""

QUERY_TOKENS = 16
WARM_CALLS = 30


class EncodeTexts(msgspec.Struct, frozen=True):
    """Texts that are encoded together, and those among them that are queries; one of these is encoded alone."""

    texts: list[str]
    queries: list[str]


class EncodeJob(Job, frozen=True, kw_only=True):
    """A variant of a pack, the path of its `EncodeTexts`, and the numbers of threads and calls."""

    pack: str
    variant: str
    inputs: str
    threads: list[int]
    calls: int
    repetitions: int


@dataclass
class TimedSession:
    """A session, and the CPU seconds of its runs in the thread that calls it."""

    session: Session
    seconds: float = 0.0

    def run(
        self, outputs: Sequence[str], feeds: Feeds, adapter: Adapter | None = None, *, release_memory: bool = False
    ) -> list[Array]:
        """Run the session; see `Session.run`."""
        begin = time.thread_time()
        results = self.session.run(outputs, feeds, adapter, release_memory=release_memory)
        self.seconds += time.thread_time() - begin
        return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument("--set", action="append", default=[], metavar="NAME", help="set to draw from; default: all")
    add_variant(parser)
    add_number(parser, "--texts", 512, "number of texts that are encoded together, half of them queries")
    add_number(parser, "--calls", 400, "calls with one query")
    add_number(parser, "--repetitions", 7, "calls with all texts")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one query on one thread, and all texts on one thread and on all.

    Raises:
        InputError: the sets have too few texts.
        EmbedpackError: the worker failed.
    """
    pack = read_pack(options.pack)
    variant = variant_of(pack, options.variant)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch, "texts.json")
        inputs.write_bytes(msgspec.json.encode(_draw(options)))
        job = EncodeJob(
            pack=str(options.pack.resolve()),
            variant=variant,
            inputs=str(inputs),
            threads=sorted({1, options.threads or available_cores()}),
            calls=options.calls,
            repetitions=options.repetitions,
        )
        measured = in_fresh_process(measure_encode, job)
    described = {"model": pack.manifest.name, "variant": variant, "repetitions": options.repetitions}
    return {**described, **measured}


def _draw(options: argparse.Namespace) -> EncodeTexts:
    """Draw as many queries as documents."""
    queries, documents = _texts(options)
    rng, half = np.random.default_rng(options.seed), options.texts // 2
    if len(queries) < half or len(documents) < options.texts - half:
        most = 2 * min(len(queries), len(documents))
        raise InputError(f"{options.data}: {len(queries)} queries, {len(documents)} documents; pass --texts {most}")
    drawn = [
        *(queries[row] for row in rng.choice(len(queries), half, replace=False)),
        *(documents[row] for row in rng.choice(len(documents), options.texts - half, replace=False)),
    ]
    return EncodeTexts([drawn[row] for row in rng.permutation(len(drawn))], drawn[:half])


def _texts(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Texts of the queries and of the documents of the sets, each once."""
    sets = read_retrieval_sets(options.data, options.set)
    queries = dict.fromkeys(text for each in sets for text in each.queries.values())
    documents = dict.fromkeys(text for each in sets for text in each.documents.values() if isinstance(text, str))
    return list(queries), list(documents)


def measure_encode(job: EncodeJob) -> dict[str, Any]:
    """Measure a query of about QUERY_TOKENS tokens and all texts, by number of threads."""
    inputs = msgspec.json.decode(Path(job.inputs).read_bytes(), type=EncodeTexts)
    models = {count: Embedder(job.pack, variant=job.variant, threads=count) for count in job.threads}
    model = models[1]
    times: dict[int, list[Timing]] = {count: [] for count in models}
    for _ in range(job.repetitions + 1):
        for count, each in models.items():
            times[count].append(once(partial(each.encode, inputs.texts, prompt_name="")))
    many = [
        {"threads": count, **{kind: spread([row[kind] for row in rows[1:]]) for kind in ("wall_s", "cpu_s")}}
        for count, rows in times.items()
    ]
    tokens = sum(map(len, _ids(model, inputs.texts, "")))
    return {
        "one": _one_query(model, inputs.queries, job.calls),
        "texts": len(inputs.texts),
        "tokens": tokens,
        "many": many,
    }


def _one_query(model: Embedder, queries: Sequence[str], calls: int) -> dict[str, Any]:
    """CPU seconds of a query, and those outside the graph."""
    task = model.pack.manifest.tasks[model.task or next(iter(model.tasks))]
    name = query_prompt(task)
    lengths = [len(ids) for ids in _ids(model, queries, task.prompt(name).prefix)]
    row = min(range(len(lengths)), key=lambda row: abs(lengths[row] - QUERY_TOKENS))
    graph = model._encoder._text
    session = TimedSession(graph.session)
    model._encoder._text = replace(graph, session=session)
    whole, outside = [], []
    for call in range(WARM_CALLS + calls):
        session.seconds, begin = 0.0, time.thread_time()
        model.encode(queries[row], prompt_name=name)
        seconds = time.thread_time() - begin
        if call >= WARM_CALLS:
            whole.append(seconds)
            outside.append(seconds - session.seconds)
    model._encoder._text = graph
    shares = [part / all_of_it for part, all_of_it in zip(outside, whole, strict=True)]
    return {
        "tokens": lengths[row],
        "calls": calls,
        "cpu_s": spread(whole),
        "outside_s": spread(outside),
        "outside_share": statistics.median(shares),
    }


def _ids(model: Embedder, texts: Sequence[str], prefix: str) -> list[Any]:
    return [tokens.ids for tokens in model._encoder.processor.tokenizer.encode(texts, prefix)]


HEADER = ["encode", "threads", "CPU, ms", "tokens per second of CPU", "outside the graph"]


def document_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table in docs/speed.md; CPU time, as the wall time of several threads needs a quiet host."""
    one = results["one"]
    outside = f"{1e3 * one['outside_s']['median']:.2f} ms, {100 * one['outside_share']:.0f} %"
    rows = [["one query", "1", one["tokens"], one["cpu_s"], outside]]
    texts = f"{results['texts']} texts"
    rows += [[texts, str(row["threads"]), results["tokens"], row["cpu_s"], ""] for row in results["many"]]
    return [
        [f"{what}, {tokens:,} tokens", threads, f"{1e3 * cpu['median']:,.1f}", f"{tokens / cpu['median']:,.0f}", rest]
        for what, threads, tokens, cpu, rest in rows
    ]


def table(results: Mapping[str, Any]) -> str:
    """Format the times, and the wall times of all texts."""
    walls = [f"{row['threads']} threads: {cell(row['wall_s'], 1e3, 0)} ms" for row in results["many"]]
    return f"{text_table(HEADER, document_rows(results))}\n\nwall time of all texts, {'; '.join(walls)}"
