"""Changed manifests, also shown and verified: an accepted one gives the vectors of the sound pack."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from embedpack import Embedder
from embedpack.cli.main import main
from tests.fuzz.mutations import json_bytes, mutate_json
from tests.fuzz.outcome import Attempt, Fuzzer, check
from tests.fuzz.packs import TEXTS, PackCopy, check_alone, vectors_of
from tests.helpers.tiny_pack import TINY_PACK

# Cosine of the vectors of all weights formats with those of fp32; below it, a vector is that of another text or model.
MIN_COSINE = 0.99
# Variants and parts with files are chosen more often than all others together.
PARTS = ("kind", "single", "score", "text", "spaces", "tasks", "variants", "files", "image", "vision", "format")


def prepare(folder: Path) -> Attempt:
    """Tries with changed values of the manifest of the tiny pack."""
    pack = PackCopy(TINY_PACK, folder / "pack")
    manifest, sound = pack.manifest, vectors_of(Embedder(TINY_PACK, weights="fp32", threads=1))

    def attempt(rng: random.Random) -> None:
        changed = mutated(manifest, rng)
        pack.write({"pack.json": json_bytes(changed, rng)})
        if rng.random() < 0.3:
            # An error that is none of embedpack's leaves `main` as it is.
            main([rng.choice(("inspect", "verify")), str(pack.folder)])
        embedder = Embedder(pack.folder, weights=rng.choice((None, "fp32", "int8", "int4")), threads=1)
        vectors = vectors_of(embedder)
        check_alone(embedder, TEXTS[0], vectors[0])
        if same_texts(embedder, manifest):
            lowest = float(np.sum(vectors * sound, axis=1).min())
            check(lowest > MIN_COSINE, f"cosine {lowest} with the vectors of the sound pack")

    return attempt


def mutated(manifest: Any, rng: random.Random) -> Any:
    """A manifest with changes anywhere, or in one part."""
    part = rng.choice(PARTS)
    if rng.random() < 0.4:
        return mutate_json(manifest, rng)
    return {**manifest, part: mutate_json(manifest[part], rng)}


def same_texts(embedder: Embedder, manifest: Any) -> bool:
    """True if the graph of a changed pack is given the same tokens; prompts and limits may be changed."""
    text, task = embedder.pack.manifest.text, embedder.pack.manifest.tasks[embedder.task or ""]
    limits = text.max_tokens >= manifest["text"]["max_tokens"]
    return limits and not task.prompt(None).prefix and text.tokenizer == manifest["text"]["tokenizer"]


FUZZER = Fuzzer("pack.json", 2500, prepare)
