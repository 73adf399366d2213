"""Decoders: vectors of a trained decoder in the layout of jina-embeddings-v4, quantized and in float32.

The decoder's weights are trained; its adapters and its projector are random, of realistic size. So vectors are compared
with those of the same weights in float32; rankings by relevance judgements would mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checkpoints.make_v4 import V4Options, make_v4
from benchmarks.retrieval_sets import read_retrieval_sets
from embedpack import Embedder
from embedpack_export.arrays import Float64
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.cosines import row_cosines
from embedpack_export.metrics.rankings import Ranks, top_columns, top_k_overlap
from embedpack_export.pipeline import export
from embedpack_export.planning.settings import ExportSettings

SUMMARY = "Vectors of a trained decoder with adapters, quantized and compared with float32."
EXAMPLES = """\
  python -m benchmarks decoders models/SmolLM2-135M --data data/eval
  python -m benchmarks decoders models/Qwen2.5-Coder-0.5B --data data/eval --texts 2000 --name decoder-qwen"""

# Prose in six languages, descriptions, and code in three.
SETS = (
    "retrieval/xquad-en", "retrieval/xquad-de", "retrieval/xquad-es", "retrieval/xquad-ru", "retrieval/xquad-zh",
    "retrieval/debian-desc-en", "retrieval/debian-desc-fr", "code/cosqa-dev", "code/nl2bash", "code/java-cs-test",
)  # fmt: skip
MAX_CHARACTERS = 300
TASK = "retrieval"


@dataclass(frozen=True)
class VariantVectors:
    """Vectors of a variant.

    Attributes:
        single: single vectors, [texts, dimensions].
        tokens: vectors of all tokens of some texts, [tokens, dimensions].
        cpu_s: CPU seconds of the single vectors.
    """

    single: Float64
    tokens: Float64
    cpu_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("decoder", type=Path, metavar="DECODER", help="folder of a Llama or Qwen2 checkpoint")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument("--texts", type=int, default=2000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--token-texts", type=int, default=200, metavar="N", help="texts of multi-vectors; default: %(default)s"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the checkpoint and the pack there")
    parser.add_argument("--switchable", action="store_true", help="measure switchable adapters too")
    parser.add_argument(
        "--weights", action="append", choices=("int8", "int4"), help="may be repeated; default: int8 and int4"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write the checkpoint, export it, compare the vectors."""
    texts = draw_texts(options.data, options.texts, options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        checkpoint, pack = folder / "checkpoint", folder / "pack"
        make_v4(checkpoint, V4Options(text_from=options.decoder, seed=options.seed))
        weights = tuple(options.weights or ("int8", "int4"))
        start = time.perf_counter()
        export(
            ExportSettings(
                checkpoint=checkpoint,
                output=pack,
                tasks=(TASK,),
                weights=("fp32", *weights),
                adapter_modes=("switchable", "merged") if options.switchable else ("merged",),
                modality="text",
                overwrite=True,
            )
        )
        seconds = time.perf_counter() - start
        exact = _vectors(pack, f"{TASK}-fp32", texts, options)
        variants = {}
        for name in weights:
            merged = _vectors(pack, f"{TASK}-{name}", texts, options)
            variants[f"{TASK}-{name}"] = compare(exact, merged)
            if options.switchable:
                variants[f"switchable-{name}"] = _compare_switchable(pack, name, exact, merged, texts, options)
        if options.switchable:
            variants["switchable-fp32"] = _compare_switchable(pack, "fp32", exact, exact, texts, options)
    return {
        "decoder": options.decoder.name,
        "texts": len(texts),
        "token_texts": options.token_texts,
        "export_s": round(seconds, 1),
        "variants": variants,
    }


def _compare_switchable(
    pack: Path,
    weights: str,
    exact: VariantVectors,
    merged: VariantVectors,
    texts: Sequence[str],
    options: argparse.Namespace,
) -> dict[str, float]:
    switched = _vectors(pack, f"switchable-{weights}", texts, options)
    return compare(exact, switched) | {
        "to_merged_cosine_mean": _round(row_cosines(merged.single, switched.single).mean()),
        "to_merged_cpu": _round(switched.cpu_s / merged.cpu_s),
    }


def draw_texts(data: Path, count: int, seed: int) -> list[str]:
    """Draw texts from all sets in equal parts, cut to MAX_CHARACTERS to save time."""
    rng = np.random.default_rng(seed)
    per_set = -(-count // len(SETS))
    drawn: list[str] = []
    for evaluation_set in read_retrieval_sets(data, SETS):
        texts = [
            text
            for text in (*evaluation_set.documents.values(), *evaluation_set.queries.values())
            if isinstance(text, str)
        ]
        drawn += [
            texts[row][:MAX_CHARACTERS] for row in rng.choice(len(texts), min(per_set, len(texts)), replace=False)
        ]
    return drawn[:count]


def compare(exact: VariantVectors, quantized: VariantVectors) -> dict[str, float]:
    """Compare quantized vectors with those in float32 by cosine and by nearest neighbours."""
    cosines, tokens = row_cosines(exact.single, quantized.single), row_cosines(exact.tokens, quantized.tokens)
    mean = exact.single.mean(axis=0)
    centred = row_cosines(exact.single - mean, quantized.single - mean)
    return {
        "cosine_mean": _round(cosines.mean()),
        "cosine_p1": _round(np.quantile(cosines, 0.01)),
        "cosine_min": _round(cosines.min()),
        # Vectors of a decoder that was not trained for it share a large common direction, which flatters cosines.
        "centred_cosine_mean": _round(centred.mean()),
        "top10_overlap": _round(top_k_overlap(_nearest(quantized.single), _nearest(exact.single))),
        "token_cosine_mean": _round(tokens.mean()),
        "token_cosine_p1": _round(np.quantile(tokens, 0.01)),
    }


def _vectors(pack: Path, variant: str, texts: Sequence[str], options: argparse.Namespace) -> VariantVectors:
    model = Embedder(pack, variant=variant, threads=options.threads)
    task = TASK if variant.startswith("switchable") else None
    start = time.process_time()
    single = model.encode(texts, task=task, prompt_name="passage")
    seconds = time.process_time() - start
    tokens = model.encode_multi(texts[:: max(1, len(texts) // options.token_texts)], task=task, prompt_name="passage")
    return VariantVectors(np.asarray(single, np.float64), np.asarray(tokens.codes, np.float64), seconds)


def _nearest(vectors: Float64) -> Ranks:
    """Return the nearest texts of each text."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return top_columns(scores)


def _round(value: Any) -> float:
    return round(float(value), 6)


def table(results: Mapping[str, Any]) -> str:
    """Format a line for each variant."""
    rows = [
        (
            name,
            f"{figures['cosine_mean']:.5f}",
            f"{figures['cosine_p1']:.5f}",
            f"{figures['centred_cosine_mean']:.5f}",
            f"{100 * figures['top10_overlap']:.1f} %",
            f"{figures['token_cosine_mean']:.5f}",
            f"{figures['to_merged_cosine_mean']:.5f}" if "to_merged_cosine_mean" in figures else "",
            f"{figures['to_merged_cpu']:.2f}x" if "to_merged_cpu" in figures else "",
        )
        for name, figures in results["variants"].items()
    ]
    header = (
        "variant",
        "cosine",
        "1st percentile",
        "centred",
        "same 10 nearest",
        "tokens' cosine",
        "to merged",
        "CPU time",
    )
    return f"{results['decoder']}, {results['texts']} texts\n\n{text_table(header, rows)}"
