"""Tables of the README and of docs/, written from the results files.

Each table is a block between two comments that name it; BLOCKS has the file of every block.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.arguments import program
from benchmarks.host import real_size, server_tables
from benchmarks.host.long_texts import document_rows as long_text_rows
from benchmarks.peers.catalogue import PARTS
from benchmarks.quality import late_chunks
from benchmarks.quality.families import document_note, document_rows
from benchmarks.quality.late_chunks import document_note as late_chunk_note
from benchmarks.quality.late_chunks import document_rows as late_chunk_rows
from benchmarks.roofline.table import document_rows as roofline_rows
from benchmarks.search import two_stage as stages
from benchmarks.speed import adapters, encode
from benchmarks.speed.peer_forms import MIN_COSINE, best_rows, form_rows, forms_of
from benchmarks.speed.speed import MAX_LOAD
from benchmarks.speed.table import missing_peers
from embedpack_export.html.svg_file import svg_file

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
EXAMPLES = "example:\n  python -m benchmarks.readme"
SHAPES = ((1, 16), (32, 128))
DECODER_SHAPES = ((1, 16), (1, 128), (4, 128))
MULTI_PRECISIONS = ("float32", "int8", "4bit", "2bit", "binary")
# Images in the calibration of an export, and the precisions of the table of the modality gap.
GAP_IMAGES, GAP_PRECISIONS = 6, ("2bit", "binary")


def headline() -> list[str]:
    """Size, loss and speed of the int8 variant of the default model."""
    accuracy, speed, footprint = (_report(name) for name in ("accuracy", "peers-minilm", "footprint"))
    megabytes = {row["variant"]: row["weights_bytes"] / 1e6 for row in footprint["results"]["variants"]}
    peaks = {row["variant"]: row["memory"]["after_texts"]["peak"] / 1e6 for row in footprint["results"]["variants"]}
    task, loss = min(_losses(accuracy, "int8").items(), key=lambda entry: entry[1]["difference"])
    worst = min(entry["variants"]["retrieval-int8"]["cosine"]["p1"] for entry in retrieval_sets(accuracy["results"]))
    header = ["pack", "weights", "peak memory", "nDCG@10 minus torch, worst task", "cosine, 1st percentile", "speed"]
    cells = [
        "all-MiniLM-L6-v2 with adapters, int8",
        f"{megabytes['retrieval-int8']:.0f} MB (fp32: {megabytes['retrieval-fp32']:.0f} MB)",
        f"{peaks['retrieval-int8']:.0f} MB (fp32: {peaks['retrieval-fp32']:.0f} MB)",
        f"{loss['difference']:+.2f} points [{loss['low']:+.2f}, {loss['high']:+.2f}]",
        f"{worst:.5f}",
        " to ".join(sorted(_speedups(speed, "retrieval-int8"))) + " the fp32 graph",
    ]
    note = (
        f"Worst of three tasks: {task}, {loss['queries']} queries, 95 % interval. Cosine to torch on the worst "
        f"retrieval set. Memory of the process after loading and encoding. Speed on one thread of {_cpu(speed)}, "
        "batches of 1 x 16 and 32 x 128 tokens."
    )
    return _table(header, [cells], note)


def _losses(report: Mapping[str, Any], weights: str) -> dict[str, Any]:
    """Difference from the reference in each task, of float32 vectors at full dimensions, with its interval."""
    settings = [
        (task["task"], row)
        for task in report["results"]["accuracy"]["tasks"]
        for row in task["settings"]
        if row["decides_exit_status"] and row["setting"]["vectors"] == "single"
    ]
    return {task: row["test"] for task, row in settings if row["setting"]["variant"] == f"{task}-{weights}"}


def variants() -> list[str]:
    """Accuracy, size and speed of the variants of the default model."""
    accuracy, speed, footprint = (_report(name) for name in ("accuracy", "peers-minilm", "footprint"))
    megabytes = {row["variant"]: row["weights_bytes"] / 1e6 for row in footprint["results"]["variants"]}
    sets = retrieval_sets(accuracy["results"])
    names = [entry["set"].rsplit("/", 1)[-1] for entry in sets]
    shapes = [f"{rows}x{tokens}" for rows, tokens in SHAPES]
    header = ["variant", "MB", *(f"nDCG@10 {name}" for name in names), "cosine, 1st percentile", *shapes]
    reference = [f"{entry['reference_ndcg_at_10']:.2f}" for entry in sets]
    rows = [["torch, adapter unmerged", "", *reference, "", "", ""]]
    for variant in sets[0]["variants"]:
        scores = [entry["variants"][variant] for entry in sets]
        ndcg = [f"{score['ndcg_at_10']:.2f} ({score['difference']:+.2f})" for score in scores]
        worst = min(score["cosine"]["p1"] for score in scores)
        rows.append([variant, f"{megabytes[variant]:.0f}", *ndcg, f"{worst:.5f}", *_speedups(speed, variant)])
    note = (
        "all-MiniLM-L6-v2 with the default retrieval adapter. nDCG@10 in points, in brackets the difference from "
        f"torch; the 1st percentile of cosines on the worst set. {_combined_differences(accuracy['results'])} "
        f"{_outcomes(accuracy)} "
        f"{_gain_of_int4()} Last columns: speed relative to fp32 for batches of texts x tokens, one thread of "
        f"{_cpu(speed)}. Files: `benchmarks/results/`."
    )
    return _table(header, rows, note)


def _combined_differences(results: Mapping[str, Any]) -> str:
    differences = []
    for row in results["accuracy"]["combined"]:
        test = row["test"]
        interval = f"[{test['low']:+.2f}, {test['high']:+.2f}]"
        differences.append(f"{row['weights']} {test['difference']:+.2f} {interval}")
    return f"Mean difference over the sets of all three tasks: {', '.join(differences)}."


def _outcomes(report: Mapping[str, Any]) -> str:
    """Outcomes of the non-inferiority test by weights format and task."""
    sentences = []
    for weights in ("int8", "int4"):
        losses = _losses(report, weights)
        outcomes = ", ".join(f"{task} {loss['outcome']}" for task, loss in losses.items())
        sentences.append(f"{weights} at a margin of {next(iter(losses.values()))['margin']} points: {outcomes}.")
    return " ".join(sentences)


def _gain_of_int4() -> str:
    """Points of nDCG@10 that calibration adds to int4."""
    results = _report("weights")["results"]
    gain, (low, high) = (results["gptaq_minus_rtn"][key] for key in ("mean", "interval_95"))
    return (
        f"Calibrated int4 scores {gain:.1f} points [{low:.1f}, {high:.1f}] higher than round-to-nearest int4, mean of "
        f"{len(results['sets'])} sets."
    )


def retrieval_sets(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Evaluation sets of the task retrieval: name, reference's nDCG@10, scores of whole float32 vectors by variant."""
    (task,) = (task for task in results["accuracy"]["tasks"] if task["task"] == "retrieval")
    whole = [row for row in task["settings"] if row["decides_exit_status"] and row["measure"] == "nDCG@10"]
    single = [row for row in whole if row["setting"]["vectors"] == "single"]
    return [
        {
            "set": described["name"],
            "reference_ndcg_at_10": described["reference"],
            "variants": {
                row["setting"]["variant"]: {
                    "ndcg_at_10": scores["score"],
                    "difference": scores["difference"],
                    "cosine": scores["cosine"],
                }
                for row in single
                for scores in row["sets"]
                if scores["set"] == described["name"]
            },
        }
        for described in task["sets"]
        if described["kind"] != "sts"
    ]


def peers(results: str) -> list[str]:
    """Speed and vectors of other programs in their best forms with the default model, compared with int8."""
    report = _report(results)
    header, *rows = best_rows(forms_of(report["results"]))
    note = (
        "CPU time of each program, in its fastest form, relative to that of embedpack's int8 of all-MiniLM-L6-v2: "
        "above 1, embedpack is faster. Batches of texts x tokens; each program may compute one in parts, embedpack "
        "in those of `Embedder`. Medians of "
        f"{report['results']['repetitions']} interleaved runs, one thread of {_cpu(report)}; cosines are to torch in "
        "float32, of random words."
    )
    # Names end with the workload.
    failed = dict.fromkeys(name.rpartition(", ")[0] for name in report["results"]["peers"]["failed"])
    return _table(header, rows, " ".join([note, *(f"{name} failed." for name in failed)]))


def roles(results: str, model: str) -> list[str]:
    """Time of the nodes of the int8 graph of a model, by role."""
    report = _report(results)
    header, *rows = roofline_rows(report["results"])
    times = ", ".join(
        f"{row['rows']}x{row['tokens']} {1000 * row['cpu_s']:.2f} ms" for row in report["results"]["shapes"]
    )
    note = (
        f"int8 of {model} on one thread of {_cpu(report)}. Times are those of onnxruntime's profile, which "
        f"adds 2 to 4 microseconds to each node; CPU time of a run without it: {times}. The floor is the time of the "
        "products at the peak of a core, or of the bytes at the rate of a copy."
    )
    return _table(header, rows, note)


def peer_forms() -> list[str]:
    """Forms of other programs with the default model."""
    results = _report("peer-forms")["results"]
    header, *rows = form_rows(forms_of(results))
    note = (
        "Geometric mean of the ratios over the same batches. The best form is the fastest one whose mean cosine with "
        f"torch is at least {MIN_COSINE} on each of them. Parts of {PARTS} tokens of onnxruntime's fused forms are in "
        "the table above alone. `benchmarks/results/peer-forms.json` has the times."
    )
    absent = (f"Not measured: {text}." for text in missing_peers(results["peers"]))
    return _table(header, rows, " ".join([note, *absent]))


def decoder_peers() -> list[str]:
    """Speed and vectors of other programs with a decoder, compared with int8."""
    report = _report("peers-decoder")
    peak = report["results"]["peak_of_a_core"]
    int8 = [row for row in report["results"]["shapes"] if row["variant"].endswith("-int8")]
    shares = [row["share_of_peak"]["median"] for row in int8 if (row["rows"], row["tokens"]) in DECODER_SHAPES]
    note = (
        "The same for a decoder of the shape of jina-embeddings-v4, cut to four layers, with random weights. int8 "
        f"reaches {min(shares):.0%} to {max(shares):.0%} of the int8 peak of a core of this CPU, which is "
        f"{peak['int8']['gops'] / peak['fp32']['gops']:.1f} times its fp32 peak."
    )
    return _peer_table(report, DECODER_SHAPES, note)


def _peer_table(report: Mapping[str, Any], shapes: Sequence[tuple[int, int]], note: str) -> list[str]:
    results = report["results"]["peers"]
    columns = [[row for row in results["shapes"] if (row["rows"], row["tokens"]) == shape] for shape in shapes]
    names = [f"{rows}x{tokens}" for rows, tokens in shapes]
    if results["mixed"]:
        columns.append(results["mixed"])
        names.append("mixed lengths")
    speedups: dict[str, list[str]] = {name: [] for name in results["peers"]}
    lowest = dict.fromkeys(speedups, 1.0)
    for row in chain(*columns):
        speedups[row["peer"]].append(f"{row['int8_speedup']['median']:.2f}x")
        lowest[row["peer"]] = min(lowest[row["peer"]], row["cosine"]["min"])
    rows = [[name, *cells, f"{lowest[name]:.4f}"] for name, cells in speedups.items() if cells]
    return _table(["int8 compared with", *names, "program's lowest cosine"], rows, note)


def long_texts() -> list[str]:
    """Memory and time of one text by its length."""
    report = _report("long-texts")
    header = ["encoder", "weights", "tokens", "memory", "CPU time", "next to the first"]
    note = (
        "One text; 12 layers of 768 channels with random values, sizes of each architecture. Memory of the "
        f"process above that of the loaded model. {report['provenance']['threads']} thread of {_cpu(report)}."
    )
    return _table(header, long_text_rows(report["results"]), note)


def codes() -> list[str]:
    """Bytes and retention of every precision."""
    models = _report("codes")["results"]["models"]
    full = [{row["precision"]: row for row in model["rows"] if row["dimensions"] == _full(model)} for model in models]
    rows = []
    for precision, first in full[0].items():
        cells = [f"{row[precision]['retention']:.1%} ({row[precision]['worst_retention']:.1%})" for row in full]
        rows.append([precision, str(first["bytes"]), *cells])
    dimensions = " and ".join(sorted({str(_full(model)) for model in models}))
    sets = max(sum(entry["in_mean"] for entry in model["sets"]) for model in models)
    note = (
        f"Share of float32's nDCG@10 that codes of {dimensions} dimensions retain; queries are float32 unless stated. "
        f"Mean of up to {sets} retrieval sets, in brackets the worst. Intervals and truncations: "
        "`python -m benchmarks show benchmarks/results/codes.json`."
    )
    return _table(["`precision`", "bytes", *(model["model"] for model in models)], rows, note)


def gap() -> list[str]:
    """Recall of binary and 2-bit codes of texts and images by the center of their codes."""
    report = _report("modality-gap")
    measured = [row for row in report["results"]["rows"] if row["images"] == GAP_IMAGES and row["gap"] > 0]
    sides = [(side, precision) for side in ("images", "texts") for precision in GAP_PRECISIONS]
    rows = [
        [f"{row['gap']:.2f}", row["center"], *(f"{row['recall_at_10'][side][name]:.1%}" for side, name in sides)]
        for row in measured
    ]
    note = (
        "Share of the ten nearest images, or texts, of a float32 query that codes find. Vectors of "
        f"{report['results']['model']} stand for both modalities, each moved by an offset of its own; the gap is the "
        f"distance of their means. The calibration has 240 texts and {GAP_IMAGES} images. "
        "`python -m benchmarks show benchmarks/results/modality-gap.json` has all precisions, and many images."
    )
    return _table(["gap", "center", *(f"{side}, {name}" for side, name in sides)], rows, note)


def multi() -> list[str]:
    """Bytes and retention of multi-vectors, by pool factor and precision."""
    results = _report("multi")["results"]
    cells = {
        (row["pool_factor"], row["precision"]): f"{row['retention']:.1%}, {row['bytes_a_document'] / 1000:.1f} kB"
        for row in results["rows"]
    }
    factors = dict.fromkeys(factor for factor, _ in cells)
    rows = [[str(factor), *(cells[factor, precision] for precision in MULTI_PRECISIONS)] for factor in factors]
    gains = ", ".join(
        f"{entry['set']} {entry['multi_vector_ndcg_at_10'] - entry['single_vector_ndcg_at_10']:+.1f}"
        for entry in results["sets"]
    )
    note = (
        f"Share of float32's nDCG@10 that multi-vectors of {results['dimensions']} dimensions retain, mean of "
        f"{len(results['sets'])} sets, and the size of a document; queries are float32 and not pooled. Multi-vectors "
        f"compared with single vectors, in points of nDCG@10: {gains}. Intervals: "
        "`python -m benchmarks show benchmarks/results/multi.json`."
    )
    return _table(["`pool_factor`", *MULTI_PRECISIONS], rows, note)


def decoder() -> list[str]:
    """Closeness of int8 to float32 in a decoder."""
    results = _report("decoder-smollm2")["results"]
    int8 = results["variants"]["retrieval-int8"]
    return [
        f"SmolLM2-135M in the layout of jina-embeddings-v4 with random adapters, {results['texts']} texts, int8 "
        f"compared with float32: cosine {int8['cosine_mean']:.5f}, 1st percentile {int8['cosine_p1']:.5f}, token "
        f"vectors {int8['token_cosine_mean']:.5f}; top-10 overlap {int8['top10_overlap']:.0%}."
    ]


def families() -> list[str]:
    """Closeness of real weights of several families to torch."""
    reports = [_report(path.stem) for path in sorted(RESULTS.glob("families-*.json"))]
    header, *rows = document_rows(reports)
    return _table(header, rows, document_note(reports))


def server() -> list[str]:
    """Times of the server, beside another one."""
    report = _report("server")
    note = (
        "all-MiniLM-L6-v2, embedpack in int8, sentence-transformers in float32, on "
        f"{report['provenance']['threads']} thread(s) of {_cpu(report)}; load "
        f"{report['provenance']['load_average']:.0f} on "
        f"{report['provenance']['cpu']['cores']} cores. {server_tables.document_note(report['results'])}"
    )
    return _table(server_tables.DOCUMENT_HEADER, server_tables.document_rows(report["results"]), note)


def late_chunking() -> list[str]:
    """Scores of chunks that are encoded late, compared with chunks that are encoded alone."""
    reports = [_report(path.stem) for path in sorted(RESULTS.glob("late-chunking*.json"))]
    rows = [row for report in reports for row in late_chunk_rows(report["results"])]
    return _table(late_chunks.HEADER, rows, late_chunk_note([report["results"] for report in reports]))


def switchable() -> list[str]:
    """Time with switchable adapters relative to merged ones."""
    report = _report("adapters")
    note = (
        f"int8, one text, {report['results']['repetitions']} repetitions in turns: median, lowest and highest. Random "
        f"weights, four layers of the width of each model. {report['provenance']['threads']} thread of {_cpu(report)}."
    )
    return _table(adapters.HEADER, adapters.document_rows(report["results"]), note)


def one_call() -> list[str]:
    """Time of a call with one query and with many texts."""
    report = _report("encode")
    results = report["results"]
    calls = f"{results['one']['calls']} calls with the query and {results['repetitions']} with all texts"
    note = f"{results['model']}, {results['variant']}: medians of {calls}. {_cpu(report)}."
    return _table(encode.HEADER, encode.document_rows(results), note)


def two_stage() -> list[str]:
    """Scores, bytes and time of a search in stages."""
    report = _report("two-stage")
    note = (
        f"{report['results']['reranker']} reranks. {stages.document_note(report['results'])} One thread of "
        f"{_cpu(report)}. `benchmarks/results/two-stage.json` has each set."
    )
    return _table(stages.HEADER, stages.document_rows(report["results"]), note)


def large_model() -> list[str]:
    """Exports of models of the sizes of jina-embeddings-v3 and jina-clip-v2."""
    return [f"* {real_size.document_line(_report(name))}" for name in ("real-size-v3", "real-size-clip")]


class Block(NamedTuple):
    """A table in a document, whose path is relative to the repository's root, and the function of its lines."""

    file: str
    lines: Callable[[], list[str]]


BLOCKS: Mapping[str, Block] = {
    "headline": Block("README.md", headline),
    "variants": Block("docs/accuracy.md", variants),
    "decoder": Block("docs/accuracy.md", decoder),
    "families": Block("docs/accuracy.md", families),
    "late chunking": Block("docs/accuracy.md", late_chunking),
    "two stages": Block("docs/accuracy.md", two_stage),
    "peers": Block("docs/speed.md", partial(peers, "peers-minilm")),
    "peers amx": Block("docs/speed.md", partial(peers, "peers-minilm-amx")),
    "peer forms": Block("docs/speed.md", peer_forms),
    "roles": Block("docs/speed.md", partial(roles, "roofline", "all-MiniLM-L6-v2")),
    "decoder roles": Block("docs/speed.md", partial(roles, "roofline-decoder", "SmolLM2-135M")),
    "decoder peers": Block("docs/speed.md", decoder_peers),
    "long texts": Block("docs/speed.md", long_texts),
    "one call": Block("docs/speed.md", one_call),
    "adapters": Block("docs/speed.md", switchable),
    "large model": Block("docs/speed.md", large_model),
    "server": Block("docs/server.md", server),
    "codes": Block("docs/precisions.md", codes),
    "modality gap": Block("docs/precisions.md", gap),
    "multi": Block("docs/precisions.md", multi),
}
PLOTS: Mapping[str, Callable[[], str]] = {
    "docs/two-stage.svg": lambda: svg_file(stages.plot(_report("two-stage")["results"]), "two-stage"),
}
FILES = tuple(dict.fromkeys(block.file for block in BLOCKS.values()))


def updated(file: str, text: str) -> str:
    """Return the text of a document with all blocks of that file rewritten.

    Raises:
        ValueError: a block's comments are missing.
    """
    for name, block in BLOCKS.items():
        if block.file != file:
            continue
        begin, end = f"<!-- {name}: written by python -m benchmarks.readme -->", f"<!-- {name} end -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise ValueError(f"{file}: the lines {begin} and {end} are missing")
        text = "".join([before, "\n".join([begin, *block.lines(), end]), after])
    return text


def _full(model: Mapping[str, Any]) -> int:
    return max(int(row["dimensions"]) for row in model["rows"])


def _cpu(report: Mapping[str, Any]) -> str:
    cpu = report["provenance"]["cpu"]
    busy = "" if report["provenance"]["load_average"] <= MAX_LOAD else " (a busy host: only the ratios hold)"
    vnni = "with VNNI" if any("vnni" in flag for flag in cpu["flags"]) else "without VNNI"
    return f"{cpu['model']} {vnni}{' and AMX' if 'amx_int8' in cpu['flags'] else ''}{busy}"


def _report(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text("utf-8")))


def _speedups(report: Mapping[str, Any], variant: str) -> list[str]:
    whole = [row for row in report["results"]["shapes"] if not row.get("in_parts")]
    rows = {(row["variant"], row["threads"], row["rows"], row["tokens"]): row for row in whole}
    return [f"{rows[variant, 1, *shape]['speedup_over_fp32']['median']:.1f}x" for shape in SHAPES]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], note: str) -> list[str]:
    rule = ["---"] + ["--:"] * (len(header) - 1)
    return [*(f"| {' | '.join(row)} |" for row in (header, rule, *rows)), "", note]


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite the blocks of all documents, and the plots."""
    program("benchmarks.readme", __doc__, EXAMPLES).parse_args(arguments)
    for file in FILES:
        path = ROOT / file
        path.write_text(updated(file, path.read_text("utf-8")), "utf-8")
    for file, drawn in PLOTS.items():
        (ROOT / file).write_text(drawn(), "utf-8")


if __name__ == "__main__":
    main()
