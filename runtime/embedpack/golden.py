"""Golden inputs: texts and the vectors that each variant gave when the pack was made, for `embedpack verify`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from embedpack.embedder import open_encoder
from embedpack.errors import PackError
from embedpack.pack import Pack, Strict, WeightsFormat
from embedpack.threads import available_cores

# Largest 1 - cosine. Another CPU rounds intermediate values otherwise; quantized graphs can pass a rounding on.
TOLERANCE: Mapping[WeightsFormat, float] = {"fp32": 1e-6, "int8": 1e-3, "int4": 1e-3}


class GoldenCase(Strict, frozen=True):
    """A text as the graph sees it, with its prompt in front."""

    prompt: str
    text: str


class Golden(Strict, frozen=True):
    """Content of the golden file: the cases of each task, and a vector for each of them by variant."""

    cases: dict[str, list[GoldenCase]]
    vectors: dict[str, list[list[float]]]


def check_golden(pack: Pack, variant: str) -> float:
    """Run a variant on its golden inputs.

    Returns:
        The largest 1 - cosine to the recorded vectors.

    Raises:
        PackError: the recorded vectors are missing, or the variant gives others.
    """
    chosen = pack.manifest.variants[variant]
    path = pack.folder / pack.manifest.golden
    try:
        golden = msgspec.json.decode(pack.read(pack.manifest.golden), type=Golden)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise PackError(f"{path}: {cause}") from cause
    cases, recorded = golden.cases.get(chosen.task, []), golden.vectors.get(variant, [])
    if not cases or len(cases) != len(recorded):
        raise PackError(
            f"{path}: {len(cases)} texts and {len(recorded)} vectors for {variant!r}; export the pack again"
        )
    encoder = open_encoder(pack, chosen, available_cores(), warn_when_cut=False)
    worst = 0.0
    for case, vector in zip(cases, recorded, strict=True):
        found = encoder.run([case.text], prompt=case.prompt, output="sentence_embedding")[0]
        expected = np.asarray(vector)
        if expected.shape != found.shape:
            raise PackError(f"{path}: a vector of {variant!r} has {expected.size} values, not {found.size}")
        with np.errstate(invalid="ignore"):
            loss = 1 - found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
        # max() would drop a NaN, the loss to a vector without a direction.
        worst = float(np.maximum(worst, loss))
    if not worst <= TOLERANCE[chosen.weights]:
        raise PackError(
            f"{pack.folder}: {variant} gives other vectors here than where it was made: 1 - cosine {worst:.1e}, "
            f"at most {TOLERANCE[chosen.weights]:.0e} expected; do not use it on this machine, and report the CPU"
        )
    return worst
