"""Changed manifests, also shown and verified: an accepted one gives the vectors of the sound pack.

They are those of the tiny pack, of a pack of format 2.0, and of a reranker, which is only read.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedpack import Embedder
from embedpack.cli.main import main
from embedpack.pack.folder import read_pack
from embedpack.vectors.arrays import Float32
from tests.fuzz.mutations import json_bytes, mutate_json
from tests.fuzz.outcome import Attempt, Fuzzer, check
from tests.fuzz.packs import TEXTS, PackCopy, check_alone, vectors_of
from tests.helpers.broken_packs import LISTS, PAIRS, reranker
from tests.helpers.tiny_pack import PACK_2_0, TINY_PACK

# Cosine of the vectors of all weights formats with those of fp32; below it, a vector is that of another text or model.
MIN_COSINE = 0.99
# Variants and parts with files are chosen more often than all others together.
PARTS = ("kind", "single", "multi", "score", "text", "spaces", "tasks", "default_task", "variants", "files", "image",
         "vision", "format")  # fmt: skip
PARTS_2_0 = ("text", "tasks", "variants", "files", "image", "vision", "dimensions", "truncate_dims",
             "multi_vector_dimensions", "format")  # fmt: skip


@dataclass(frozen=True)
class FuzzedPack:
    """A pack whose manifest is changed, and the vectors of its sound form."""

    copy: PackCopy
    manifest: Any
    parts: tuple[str, ...]  # keys that are changed more often than others
    task: str
    weights: tuple[str | None, ...]
    sound: Float32

    @classmethod
    def of(cls, source: Path, folder: Path, parts: tuple[str, ...], weights: tuple[str | None, ...]) -> FuzzedPack:
        """Copy a pack, and compute the vectors of its first task with the first of its weights formats."""
        pack = PackCopy(source, folder)
        task = next(iter(pack.manifest["tasks"]))
        sound = vectors_of(Embedder(source, task=task, weights=weights[0], threads=1))
        return cls(pack, pack.manifest, parts, task, weights, sound)

    def attempt(self, rng: random.Random) -> None:
        """Open the pack with a changed manifest, and compare its vectors."""
        self.copy.write({"pack.json": json_bytes(mutated(self.manifest, self.parts, rng), rng)})
        if rng.random() < 0.3:
            # An error that is none of embedpack's leaves `main` as it is.
            main([rng.choice(("inspect", "verify")), str(self.copy.folder)])
        embedder = Embedder(self.copy.folder, task=self.task, weights=rng.choice(self.weights), threads=1)
        vectors = vectors_of(embedder)
        check_alone(embedder, TEXTS[0], vectors[0])
        if same_texts(embedder, self.manifest):
            lowest = float(np.sum(vectors * self.sound, axis=1).min())
            check(lowest > MIN_COSINE, f"cosine {lowest} with the vectors of the sound pack")


def prepare(folder: Path) -> Attempt:
    """Tries with changed values of the manifests."""
    tiny = FuzzedPack.of(TINY_PACK, folder / "pack", PARTS, ("fp32", "int8", "int4", None))
    old = FuzzedPack.of(PACK_2_0, folder / "old", PARTS_2_0, ("int8", None))
    rerankers = PackCopy(TINY_PACK, folder / "reranker")

    def attempt(rng: random.Random) -> None:
        drawn = rng.random()
        if drawn < 0.7:
            tiny.attempt(rng)
        elif drawn < 0.85:
            old.attempt(rng)
        else:
            read_reranker(rerankers, tiny.manifest, rng)

    return attempt


def read_reranker(pack: PackCopy, manifest: Any, rng: random.Random) -> None:
    """Read and show the changed manifest of a reranker."""
    changed = copy.deepcopy(manifest)
    reranker(rng.choice((PAIRS, LISTS)))(changed)
    pack.write({"pack.json": json_bytes(mutated(changed, ("score", "score", "tasks", "text"), rng), rng)})
    main(["inspect", str(pack.folder)])
    read_pack(pack.folder)


def mutated(manifest: Any, parts: tuple[str, ...], rng: random.Random) -> Any:
    """A manifest with changes anywhere, or in one part."""
    part = rng.choice(parts)
    if rng.random() < 0.4:
        return mutate_json(manifest, rng)
    return {**manifest, part: mutate_json(manifest[part], rng)}


def same_texts(embedder: Embedder, manifest: Any) -> bool:
    """True if the graph of a changed pack is given the same tokens; prompts and limits may be changed."""
    text, task = embedder.pack.manifest.text, embedder.pack.manifest.tasks[embedder.task or ""]
    limits = text.max_tokens >= manifest["text"]["max_tokens"] and not text.strip and not text.after
    prompt = task.prompt(None)
    plain = not prompt.prefix and prompt.max_tokens is None and prompt.marker is None and prompt.fill is None
    return limits and plain and text.tokenizer == manifest["text"]["tokenizer"]


FUZZER = Fuzzer("pack.json", 2500, prepare)
