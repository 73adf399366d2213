"""Changed tokenizer.json files in a pack whose digests fit."""

from __future__ import annotations

import random
from pathlib import Path

from embedpack import Embedder
from tests.fuzz.mutations import mutate_bytes, mutate_json_file
from tests.fuzz.outcome import Attempt, Fuzzer
from tests.fuzz.packs import TEXTS, PackCopy, check_alone, vectors_of
from tests.helpers.tiny_pack import TINY_PACK

NAME = "tokenizer.json"


def prepare(folder: Path) -> Attempt:
    """Tries with changed tokenizers of the tiny pack."""
    pack = PackCopy(TINY_PACK, folder / "pack")

    def attempt(rng: random.Random) -> None:
        change = mutate_json_file if rng.random() < 0.7 else mutate_bytes
        with pack.replaced({NAME: change(pack.read(NAME), rng)}) as changed:
            embedder = Embedder(changed, weights="fp32", threads=1)
            check_alone(embedder, TEXTS[0], vectors_of(embedder)[0])

    return attempt


FUZZER = Fuzzer("tokenizer.json", 1500, prepare)
