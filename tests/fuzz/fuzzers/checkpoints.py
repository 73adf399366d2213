"""Changed checkpoints, exported; an accepted one is a whole pack with unit vectors."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack import Embedder
from embedpack.pack.folder import read_pack
from embedpack_export.pipeline import export
from embedpack_export.planning.settings import ExportSettings
from tests.fuzz.mutations import mutate_bytes, mutate_json_file, mutate_safetensors
from tests.fuzz.outcome import Attempt, Fuzzer, check
from tests.fuzz.packs import vectors_of
from tests.helpers.exports import quick
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder

Change = Callable[[bytes, random.Random], bytes]
# Changes of files by their endings; others lose bytes.
CHANGES: dict[str, Change] = {".json": mutate_json_file, ".safetensors": mutate_safetensors}
TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32, "cls_token": "[CLS]",
    "sep_token": "[SEP]", "pad_token": {"content": "[PAD]", "special": True}, "padding_side": "right",
    "clean_up_tokenization_spaces": True,
}  # fmt: skip
# Exports of jina-embeddings-v4 take ten times as long.
SHARES = (4, 2, 2, 1)


def prepare(folder: Path) -> Attempt:
    """Tries with one changed file of a checkpoint each."""
    sources = exports(folder)

    def attempt(rng: random.Random) -> None:
        (settings,) = rng.choices(sources, SHARES)
        path = rng.choice(sorted(path for path in settings.checkpoint.rglob("*") if path.is_file()))
        sound = path.read_bytes()
        path.write_bytes(CHANGES.get(path.suffix, mutate_bytes)(sound, rng))
        try:
            export(settings)
            use_pack(settings.output)
        finally:
            path.write_bytes(sound)
            shutil.rmtree(settings.output, ignore_errors=True)
        check(not list(folder.glob(".*.embedpack")), "a temporary folder is left")

    return attempt


def exports(folder: Path) -> list[ExportSettings]:
    """Exports of a checkpoint of each kind: encoders, a decoder, and one that reads images and has adapters."""
    output, bert = folder / "pack", make_checkpoint(folder / "bert")
    (bert / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    return [
        quick(bert, output, weights=("fp32",)),
        quick(make_checkpoint(folder / "xlm-roberta", "xlm-roberta"), output, weights=("fp32",)),
        quick(make_decoder(folder / "qwen2", "qwen2"), output, weights=("fp32",), pooling="last"),
        quick(make_v4(folder / "v4"), output, weights=("fp32",), tasks=("retrieval",)),
    ]


def use_pack(folder: Path) -> None:
    """Check the digests of a new pack and the vectors of its first task."""
    pack = read_pack(folder)
    check(len(list(pack.check_files())) == len(pack.manifest.files), "files are missing")
    vectors_of(Embedder(folder, task=next(iter(pack.manifest.tasks)), threads=1))


FUZZER = Fuzzer("checkpoints", 800, prepare)
