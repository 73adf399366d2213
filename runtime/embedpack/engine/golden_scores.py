"""Golden scores: pairs and the scores of each variant on the exporting machine, for `embedpack verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np

from embedpack.engine.call_stats import CallStats
from embedpack.engine.encoder import Encoder
from embedpack.engine.golden_image import golden_image
from embedpack.engine.graph_scores import GraphScorer, open_reader
from embedpack.engine.options import ScoreSettings
from embedpack.errors import PackError
from embedpack.inputs.pair_texts import Document
from embedpack.pack.folder import Pack
from embedpack.pack.score_recipes import ListScores, PairScores
from embedpack.pack.strict import Strict, WeightsFormat
from embedpack.vectors.arrays import Float32

# Largest difference before the activation, over the score if that is above 1. CPUs round intermediate values
# differently, and quantization amplifies it.
TOLERANCE: Mapping[WeightsFormat, float] = {"fp32": 1e-4, "fp16": 0.01, "int8": 0.05, "int4": 0.05}


class GoldenPair(Strict, frozen=True):
    """A query and a document; None: `golden_image`."""

    query: str
    document: str | None


class GoldenScores(Strict, frozen=True):
    """Content of the golden file: pairs, and their scores before the activation by variant."""

    pairs: list[GoldenPair]
    scores: dict[str, list[float]]


PAIRS = tuple(
    GoldenPair(query=query, document=document)
    for query in ("How do I reset a router?", "猫 sleeps")
    for document in (
        "Press the button on the back for ten seconds.",
        "A",
        "Die Katze schläft auf dem warmen Dach, während es regnet. 猫在屋顶上睡觉。 😀",
        "for name in sorted(os.listdir(folder)): print(name, os.path.getsize(name))",
        "To index a shelf, read every label twice. " * 12,
    )
)


def compare_golden_scores(pack: Pack, variant: str, encoder: Encoder) -> float:
    """Compare a loaded variant with its golden scores: the largest difference, over the score if that is above 1.

    PackError if the recorded scores are missing, or differ more than TOLERANCE.
    """
    path, chosen = pack.folder / pack.manifest.golden, pack.manifest.variants[variant]
    scores = pack.manifest.score
    assert isinstance(scores, PairScores | ListScores)
    try:
        golden = msgspec.json.decode(pack.read(pack.manifest.golden), type=GoldenScores)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise PackError(f"{path}: {cause}") from cause
    recorded = golden.scores.get(variant, [])
    if not golden.pairs or len(golden.pairs) != len(recorded):
        raise PackError(
            f"{path}: {len(golden.pairs)} pairs and {len(recorded)} scores for {variant!r}; export the pack again"
        )
    reader = open_reader(pack.folder, before_activation(scores), encoder.processor)
    adapter = None if chosen.task is None else chosen.adapter_of(chosen.task)
    lists = golden_lists(scores, golden.pairs)
    found = golden_scores(GraphScorer(reader, encoder, adapter), lists, scores.max_tokens)
    expected = np.asarray(recorded)
    worst = float(np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected))))
    if not worst <= TOLERANCE[chosen.weights]:
        raise PackError(
            f"{pack.folder}: {variant} computes other scores here than on the machine that exported it: difference "
            f"{worst:.1e}, at most {TOLERANCE[chosen.weights]:.0e} expected; do not use it on this machine, and report "
            "the CPU"
        )
    return worst


def before_activation(scores: PairScores | ListScores) -> PairScores | ListScores:
    """The same scores without their activation, which hides differences of high and low ones."""
    return msgspec.structs.replace(scores, activation="none") if isinstance(scores, PairScores) else scores


@dataclass(frozen=True)
class GoldenList:
    """A query and the documents that are scored together with it."""

    query: str
    documents: list[Document]


def golden_pairs(*, images: bool) -> list[GoldenPair]:
    """Golden pairs: texts, and an image if the pack takes images."""
    return [*PAIRS, *[GoldenPair(query=PAIRS[0].query, document=None)] * images]


def golden_lists(scores: PairScores | ListScores, pairs: Sequence[GoldenPair]) -> list[GoldenList]:
    """Golden pairs as the recipe scores them: each alone, or those of one query as a list."""
    if isinstance(scores, PairScores):
        return [GoldenList(pair.query, [_document(pair)]) for pair in pairs]
    return [
        GoldenList(query, [_document(pair) for pair in group])
        for query, group in groupby(pairs, lambda pair: pair.query)
    ]


def _document(pair: GoldenPair) -> Document:
    return golden_image() if pair.document is None else pair.document


def golden_scores(scorer: GraphScorer, lists: Sequence[GoldenList], max_tokens: int) -> Float32:
    """Scores of golden pairs, float32 [pairs]; each list runs alone."""
    stats = CallStats(max_tokens, None)
    return np.concatenate([scorer.score(each.query, each.documents, ScoreSettings(), stats) for each in lists])
