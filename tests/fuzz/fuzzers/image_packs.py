"""Changed packs that read images and have multi-vectors: values of the image input, vision graphs, codebooks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack import Embedder
from embedpack.inputs.items import Input
from embedpack_export.pipeline import export
from tests.fuzz.fuzzers.graphs import mutate_model
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_safetensors, random_json
from tests.fuzz.outcome import Attempt, Fuzzer, check
from tests.fuzz.packs import TEXTS, PackCopy, check_unit
from tests.helpers.exports import quick

PARTS = ("image", "image", "image", "text", "tasks", "multi", "spaces", "vision")
GRAPHS = ("vision-fp32.onnx", "retrieval-fp32.onnx")
CODEBOOKS = "calibration/retrieval.safetensors"


def prepare(folder: Path) -> Attempt:
    """Tries with a changed manifest, graph or file of codebooks of a tiny pack in the layout of jina-embeddings-v4."""
    settings = quick(make_v4(folder / "toy"), folder / "made", weights=("fp32",), tasks=("retrieval",))
    export(settings)
    pack = PackCopy(settings.output, folder / "pack")
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)

    def attempt(rng: random.Random) -> None:
        files, manifest = changes(pack, rng)
        with pack.replaced(files, manifest) as changed:
            use(Embedder(changed, threads=1), picture)

    return attempt


def changes(pack: PackCopy, rng: random.Random) -> tuple[dict[str, bytes], Any]:
    """Changed files, and the manifest."""
    manifest = pack.manifest
    if rng.random() < 0.6:
        part = rng.choice(PARTS)
        return {}, {**manifest, part: mutate_part(manifest[part], rng)}
    if rng.random() < 0.3:
        return {CODEBOOKS: mutate_safetensors(pack.read(CODEBOOKS), rng)}, manifest
    name = rng.choice(GRAPHS)
    change = mutate_bytes if rng.random() < 0.4 else mutate_model
    return {name: change(pack.read(name), rng)}, manifest


def mutate_part(value: Any, rng: random.Random) -> Any:
    """A changed part of a manifest, which may be a number."""
    return mutate_json(value, rng) if isinstance(value, dict) else random_json(rng)


def use(embedder: Embedder, picture: npt.NDArray[np.uint8]) -> None:
    """Check single vectors and multi-vectors of texts and an image."""
    inputs: list[Input] = [*TEXTS, picture]
    for precision in ("float32", "4bit"):
        single = embedder.encode(inputs, precision=precision).decode()
        check(single.shape == (len(inputs), embedder.dimensions), f"single vectors of shape {single.shape}")
        check_unit(single)
        multi = embedder.encode_multi(inputs, precision=precision, pool_factor=2).decode()
        check(len(multi) == len(inputs), f"{len(multi)} multi-vectors")
        for rows in multi:
            check_unit(rows)


FUZZER = Fuzzer("packs with images", 1000, prepare)
