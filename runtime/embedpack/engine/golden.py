"""Golden vectors: texts and the vectors of each variant on the exporting machine, for `embedpack verify`.

Those of packs that give scores alone are in `golden_scores`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from embedpack.engine.encoder import Encoder
from embedpack.engine.golden_image import golden_image
from embedpack.engine.golden_scores import compare_golden_scores
from embedpack.engine.loading import open_encoder
from embedpack.engine.options import EncodeOptions
from embedpack.errors import PackError
from embedpack.host.cores import available_cores
from embedpack.inputs.prompt_rules import PromptOrPrefix, as_prompt, prompt_order
from embedpack.pack.folder import Pack
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from embedpack.pack.strict import Strict, WeightsFormat
from embedpack.pack.variants import Device, Variant
from embedpack.vectors.arrays import Float32

# Largest 1 - cosine by weights format. CPUs round intermediate values differently, and quantization amplifies it.
TOLERANCE: Mapping[WeightsFormat, float] = {"fp32": 1e-6, "fp16": 1e-3, "int8": 1e-3, "int4": 1e-3}

# Factor of the largest error of a quantized vision graph that gives finished vectors: two runs may round otherwise, and
# then differ from each other as much as both differ from float32. Images have a thousand rows, texts of the same error
# differ far less.
IMAGE_FACTOR = 2

# Vectors of a multi-vector that are recorded; all of them would take megabytes.
GOLDEN_TOKENS = 8

TEXTS = (
    "How do I reset a router?",
    "A",
    "Die Katze schläft auf dem warmen Dach, während es regnet. 猫在屋顶上睡觉。 😀",
    "for name in sorted(os.listdir(folder)): print(name, os.path.getsize(name))",
    "To index a shelf, read every label twice. " * 12,
)


class GoldenCase(Strict, frozen=True):
    """A text and its prompt; without a text, `golden_image`."""

    prompt: PromptOrPrefix
    text: str | None


class Golden(Strict, frozen=True):
    """Content of the golden file: cases by task, and their vectors by `golden_key`."""

    cases: dict[str, list[GoldenCase]]
    vectors: dict[str, list[list[float]]]


def check_golden(pack: Pack, variant: str, cache: Path | None = None, device: Device = "cpu") -> float:
    """Compare a variant on a device with its golden vectors: the largest 1 - cosine, or difference of scores.

    Prepacked graphs are those in `cache`. PackError if the recorded vectors are missing, or differ more than TOLERANCE,
    of images of a quantized vision graph more than IMAGE_FACTOR allows.
    """
    chosen = pack.manifest.variants[variant]
    return compare_golden(pack, variant, open_encoder(pack, chosen, available_cores(), cache, device))


def compare_golden(pack: Pack, variant: str, encoder: Encoder) -> float:
    """Compare a loaded variant with its golden vectors or scores; result and PackError as of `check_golden`."""
    if pack.manifest.kind == "reranker":
        return compare_golden_scores(pack, variant, encoder)
    chosen = pack.manifest.variants[variant]
    try:
        golden = msgspec.json.decode(pack.read(pack.manifest.golden), type=Golden)
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise PackError(f"{pack.folder / pack.manifest.golden}: {cause}") from cause
    tasks = pack.manifest.tasks if chosen.task is None else [chosen.task]
    found = [distance for task in tasks for distance in _distances(pack, golden, variant, task, encoder)]
    # Written so that NaN, the distance if a vector has no direction, is an error.
    beyond = [distance for distance in found if not distance.value <= distance.limit]
    if beyond:
        worst = max(beyond, key=lambda distance: np.nan_to_num(distance.value, nan=np.inf))
        raise PackError(
            f"{pack.folder}: {variant} computes other vectors here than on the machine that exported it: 1 - cosine "
            f"{worst.value:.1e}, at most {worst.limit:.0e} expected; "
            "do not use it on this machine, and report the CPU"
        )
    return max(0.0, *(distance.value for distance in found))


def golden_key(variant: str, task: str) -> str:
    """Key of the recorded vectors of a switchable variant with the adapter of a task."""
    return f"{variant}:{task}"


@dataclass(frozen=True)
class _Distance:
    """1 - cosine of a vector to the recorded one, and the largest that rounding explains."""

    value: float
    limit: float


def _distances(pack: Pack, golden: Golden, variant: str, task: str, encoder: Encoder) -> list[_Distance]:
    """Distances of the vectors of a variant for one task to the recorded ones."""
    path = pack.folder / pack.manifest.golden
    chosen = pack.manifest.variants[variant]
    cases = golden.cases.get(task, [])
    recorded = golden.vectors.get(golden_key(variant, task) if chosen.task is None else variant, [])
    if not cases or len(cases) != len(recorded):
        raise PackError(
            f"{path}: {len(cases)} inputs and {len(recorded)} vectors for {variant!r}; export the pack again"
        )
    found = []
    multi = pack.manifest.single is None
    vectors = golden_vectors(encoder, cases, chosen.adapter_of(task), multi=multi)
    for case, vector, expected in zip(cases, vectors, map(np.asarray, recorded), strict=True):
        if expected.shape != vector.shape:
            raise PackError(f"{path}: a vector of {variant!r} has {expected.size} values, not {vector.size}")
        with np.errstate(invalid="ignore"):
            distance = 1 - vector @ expected / np.linalg.norm(vector) / np.linalg.norm(expected)
        limit = TOLERANCE[chosen.weights] if case.text is not None else _image_limit(pack, chosen)
        found.append(_Distance(float(distance), limit))
    return found


def _image_limit(pack: Pack, variant: Variant) -> float:
    """Largest 1 - cosine of an image's vector."""
    limit, measured = TOLERANCE[variant.weights], variant.accuracy.single
    if variant.weights == "fp32" or pack.manifest.vision[variant.weights].gives == "tokens" or measured is None:
        return limit
    return max(limit, IMAGE_FACTOR * (1 - measured.min))


def golden_cases(prompts: Iterable[PromptOrPrefix], *, images: bool) -> list[GoldenCase]:
    """Golden cases: every text with every prompt and without one, and `golden_image` if the pack takes images."""
    ordered = sorted({"", *prompts}, key=prompt_order)
    cases = [GoldenCase(prompt=prompt, text=text) for prompt in ordered for text in TEXTS]
    return [*cases, *[GoldenCase(prompt="", text=None)] * images]


def golden_vectors(
    encoder: Encoder, cases: Sequence[GoldenCase], adapter: str | None = None, *, multi: bool = False
) -> list[Float32]:
    """Golden vectors of cases, float32 [values] each; every case runs alone. `multi`: see `golden_of_multi`."""
    vectors = []
    for case in cases:
        items = list(encoder.processor.items([golden_image() if case.text is None else case.text]))
        options = EncodeOptions(prompt=as_prompt(case.prompt), adapter=adapter)
        if multi:
            vectors.append(golden_of_multi(encoder.run_tokens(items, TOKEN_EMBEDDINGS, options)[0]))
        else:
            vectors.append(encoder.run(items, SENTENCE_EMBEDDING, options)[0])
    return vectors


def golden_of_multi(vectors: Float32) -> Float32:
    """Golden vector of a multi-vector [tokens, dimensions], of packs without single vectors: its first vectors, joined.

    The cosine of two of them is the mean of the cosines of their vectors, which have the length 1.
    """
    return vectors[:GOLDEN_TOKENS].ravel()
