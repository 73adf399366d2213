"""Modality gap: centers of low-bit codes where the vectors of texts and images are apart.

Real vectors of texts stand for both modalities. Each modality gets an offset of its own before its vectors have the
length 1 again, as in models that are trained to compare texts with images (Liang et al. 2022, arXiv 2203.02053).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import add_number, add_pack
from benchmarks.retrieval_sets import read_retrieval_sets
from embedpack import InputError
from embedpack.inputs.items import Input
from embedpack.pack.folder import Pack, read_pack
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import LOW_BIT, Codebook, LowBit
from embedpack.vectors.codes import unit
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.planning.calibration_texts import read_calibration
from embedpack_export.quantization.codebook_fit import NEIGHBOURS, FittedVectors
from embedpack_export.reference.fp32_variant import Fp32VariantReference

SUMMARY = "Recall of low-bit codes of texts and images by the center of their codes, at several modality gaps."
EXAMPLES = """\
  python -m benchmarks modality-gap packs/minilm --data data/eval"""

# The documents of the second set stand for the images of the calibration.
SETS = ("retrieval/debian-desc-en", "code/nl2bash")
# Lengths of the offsets, over the length 1 of a vector.
OFFSETS = (0.0, 0.5, 1.0, 1.5)
# Images in the calibration: those that an export draws, and many.
IMAGES = (6, 240)
CENTERS = ("none", "all vectors", "halfway", "one each")
TEXTS, PICTURES = 0, 1


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of length 1 without a gap, float32 [n, dimensions] each."""

    calibration: Float32
    images: Float32  # of the calibration
    queries: Float32
    documents: Float32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"two of them (default: {', '.join(SETS)})"
    )
    add_number(parser, "--documents", 1000, "largest number of documents of a set")
    add_number(parser, "--queries", 250, "largest number of queries")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every center at every gap; InputError if an option, a set or the pack cannot be used."""
    names = options.sets or SETS
    if len(names) != len(SETS):
        raise InputError(f"--set names {len(names)} sets; two are needed: the measured one, and one for calibration")
    pack = read_pack(options.pack)
    vectors = _vectors(pack, names, options)
    rng = np.random.default_rng(options.seed)
    directions = unit(rng.standard_normal((2, vectors.queries.shape[1])).astype(np.float32))
    rows = [
        row
        for images in IMAGES
        for offset in OFFSETS
        for row in _rows(vectors, directions * np.float32(offset), images)
    ]
    return {"model": pack.manifest.name, "sets": names, "offsets": OFFSETS, "rows": rows}


def _vectors(pack: Pack, names: Sequence[str], options: argparse.Namespace) -> Vectors:
    measured, other = read_retrieval_sets(options.data, names, options.queries)
    reference, task = Fp32VariantReference(pack, options.threads), next(iter(pack.manifest.tasks))

    def encode(inputs: Sequence[Input], most: int) -> Float32:
        rows = np.linspace(0, len(inputs) - 1, min(most, len(inputs))).astype(int)
        return reference.single(task, [inputs[row] for row in rows])

    queries, documents = measured.sides
    return Vectors(
        calibration=reference.single(task, [text.text for text in read_calibration(None).texts]),
        images=encode(other.sides[1].inputs, max(IMAGES)),
        queries=encode(queries.inputs, options.queries),
        documents=encode(documents.inputs, options.documents),
    )


def _rows(vectors: Vectors, offsets: Float32, images: int) -> list[dict[str, Any]]:
    """Recall at one gap with each center."""
    chosen = np.linspace(0, len(vectors.images) - 1, min(images, len(vectors.images))).astype(int)
    texts = unit(vectors.calibration + offsets[TEXTS])
    pictures = unit(vectors.images[chosen] + offsets[PICTURES])
    queries = unit(vectors.queries + offsets[TEXTS])
    documents = [unit(vectors.documents + offset) for offset in offsets]
    gap = float(np.linalg.norm(documents[TEXTS].mean(axis=0) - documents[PICTURES].mean(axis=0)))
    rows = []
    for center, codebooks in _codebooks(texts, pictures).items():
        recall = {
            side: {
                precision: round(_recall(queries, documents[modality], codebooks[modality], precision), 4)
                for precision in LOW_BIT
            }
            for side, modality in (("images", PICTURES), ("texts", TEXTS))
        }
        rows.append({"images": len(pictures), "gap": round(gap, 3), "center": center, "recall_at_10": recall})
    return rows


def _codebooks(texts: Float32, images: Float32) -> dict[str, tuple[Codebook, Codebook]]:
    """Codebooks of texts and of images by their center, without rotations."""
    both = np.concatenate([texts, images])
    modalities = np.repeat([TEXTS, PICTURES], [len(texts), len(images)])
    centers = {
        "none": np.zeros(both.shape[1], np.float32),
        "all vectors": FittedVectors(both).center(),
        "halfway": FittedVectors(both, modalities).center(),
    }
    shared = {name: Codebook.gaussian(center, _spread(both - center)) for name, center in centers.items()}
    own = [group.mean(axis=0, dtype=np.float64).astype(np.float32) for group in (texts, images)]
    spread = _spread(both - np.stack(own)[modalities])
    of_texts, of_images = (Codebook.gaussian(center, spread) for center in own)
    pairs = {name: (codebook, codebook) for name, codebook in shared.items()} | {"one each": (of_texts, of_images)}
    return {name: pairs[name] for name in CENTERS}


def _spread(vectors: Float32) -> float:
    return float(np.sqrt(np.square(vectors).mean(dtype=np.float64)))


def _recall(queries: Float32, documents: Float32, codebook: Codebook, precision: LowBit) -> float:
    """Share of the exact nearest documents of queries in float32 that their codes find."""
    values = unit(codebook.values(codebook.digits(documents, precision), precision))
    found, exact = (np.argpartition(-(queries @ rows.T), NEIGHBOURS, axis=1) for rows in (values, documents))
    pairs = found[:, :NEIGHBOURS, None] == exact[:, None, :NEIGHBOURS]
    return float(pairs.any(axis=2).mean())


def table(results: Mapping[str, Any]) -> str:
    """Format one line for each gap and center."""
    header = ("images", "gap", "center", *(f"{side}, {name}" for side in ("images", "texts") for name in LOW_BIT))
    rows = [
        (
            row["images"],
            f"{row['gap']:.2f}",
            row["center"],
            *(f"{row['recall_at_10'][side][name]:.1%}" for side in ("images", "texts") for name in LOW_BIT),
        )
        for row in results["rows"]
    ]
    title = f"{results['model']}, {results['sets'][0]}: recall at 10 of queries in float32 among coded images and texts"
    return f"{title}\n{text_table(header, rows)}"
