"""Changed checkpoints, exported; an accepted one is a whole pack with unit vectors."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from embedpack import Embedder
from embedpack.pack.folder import read_pack
from embedpack_export.pipeline import export
from tests.fuzz.mutations import mutate_bytes, mutate_json_file, mutate_safetensors
from tests.fuzz.outcome import Attempt, Fuzzer, check
from tests.fuzz.packs import vectors_of
from tests.helpers.exports import quick
from tests.helpers.tiny_checkpoint import make_checkpoint

Change = Callable[[bytes, random.Random], bytes]
# Files, and changes that fit them.
CHANGES: dict[str, Change] = {
    "config.json": mutate_json_file,
    "model.safetensors": mutate_safetensors,
    "tokenizer.json": mutate_json_file,
    "modules.json": mutate_json_file,
    "1_Pooling/config.json": mutate_json_file,
    "sentence_bert_config.json": mutate_json_file,
    "config_sentence_transformers.json": mutate_json_file,
    "README.md": mutate_bytes,
}


def prepare(folder: Path) -> Attempt:
    """Tries with one changed file of a checkpoint each."""
    checkpoint = make_checkpoint(folder / "toy")
    settings = quick(checkpoint, folder / "pack", weights=("fp32",))

    def attempt(rng: random.Random) -> None:
        name = rng.choice(list(CHANGES))
        sound = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(CHANGES[name](sound, rng))
        try:
            export(settings)
            use_pack(settings.output)
        finally:
            (checkpoint / name).write_bytes(sound)
            shutil.rmtree(settings.output, ignore_errors=True)
        check(not list(folder.glob(".*.embedpack")), "a temporary folder is left")

    return attempt


def use_pack(folder: Path) -> None:
    """Check the digests of a new pack and the vectors of its first task."""
    pack = read_pack(folder)
    check(len(list(pack.check_files())) == len(pack.manifest.files), "files are missing")
    vectors_of(Embedder(folder, task=next(iter(pack.manifest.tasks)), threads=1))


FUZZER = Fuzzer("checkpoints", 600, prepare)
