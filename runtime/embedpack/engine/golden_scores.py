"""Golden scores: pairs and the scores of each variant on the exporting machine, for `embedpack verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from embedpack.engine.call_stats import CallStats
from embedpack.engine.encoder import Encoder
from embedpack.engine.options import ScoreSettings
from embedpack.engine.pair_scores import PairReader, PairScorer
from embedpack.errors import PackError
from embedpack.pack.folder import Pack
from embedpack.pack.score_recipes import PairScores
from embedpack.pack.strict import Strict, WeightsFormat
from embedpack.vectors.arrays import Float32

# Largest difference before the activation, over the score if that is above 1. CPUs round intermediate values
# differently, and quantization amplifies it.
TOLERANCE: Mapping[WeightsFormat, float] = {"fp32": 1e-4, "int8": 0.05, "int4": 0.05}


class GoldenPair(Strict, frozen=True):
    """A query and a document."""

    query: str
    document: str


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
    if not isinstance(scores, PairScores):
        raise PackError(f"{pack.folder}: this embedpack cannot run scores of lists; update it")
    try:
        golden = msgspec.json.decode(pack.read(pack.manifest.golden), type=GoldenScores)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise PackError(f"{path}: {cause}") from cause
    recorded = golden.scores.get(variant, [])
    if not golden.pairs or len(golden.pairs) != len(recorded):
        raise PackError(
            f"{path}: {len(golden.pairs)} pairs and {len(recorded)} scores for {variant!r}; export the pack again"
        )
    reader = PairReader(pack.folder, before_activation(scores), encoder.processor.tokenizer)
    adapter = None if chosen.task is None else chosen.adapter_of(chosen.task)
    found = golden_scores(PairScorer(reader, encoder, adapter), golden.pairs, scores.max_tokens)
    expected = np.asarray(recorded)
    worst = float(np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected))))
    if not worst <= TOLERANCE[chosen.weights]:
        raise PackError(
            f"{pack.folder}: {variant} computes other scores here than on the machine that exported it: difference "
            f"{worst:.1e}, at most {TOLERANCE[chosen.weights]:.0e} expected; do not use it on this machine, and report "
            "the CPU"
        )
    return worst


def before_activation(scores: PairScores) -> PairScores:
    """The same scores without their activation, which hides differences of high and low ones."""
    return msgspec.structs.replace(scores, activation="none")


def golden_scores(scorer: PairScorer, pairs: Sequence[GoldenPair], max_tokens: int) -> Float32:
    """Scores of golden pairs, float32 [pairs]; every pair runs alone."""
    stats = CallStats(max_tokens, len(pairs))
    scores = [scorer.score(pair.query, [pair.document], ScoreSettings(), stats) for pair in pairs]
    return np.concatenate(scores)
