"""Texts of any characters, and files of texts: JSON lines, CSV, lines."""

from __future__ import annotations

import random
from pathlib import Path

from embedpack import Embedder
from embedpack.inputs.text_files import read_texts
from tests.fuzz.mutations import STRINGS, mutate_bytes
from tests.fuzz.outcome import Attempt, Fuzzer, check
from tests.fuzz.packs import check_alone, check_unit
from tests.helpers.tiny_pack import TINY_PACK

FILES = {
    ".jsonl": b'{"id": 7, "text": "the cat sleeps"}\n{"text": "where is the router?"}\n',
    ".csv": b'id,text\n1,"the cat, sleeps"\n2,the roof\n',
    ".txt": "the cat sleeps\r\nWo ist der Zähler?\n".encode(),
}
# Blocks of characters that tokenizers treat in their own way: controls, combining marks, scripts without spaces,
# joiners, private use, the last plane.
BLOCKS = ((0x20, 0x7E), (0x20, 0x7E), (1, 0x1F), (0x80, 0x24F), (0x300, 0x36F), (0x590, 0x6FF), (0x1100, 0x11FF),
          (0x2000, 0x206F), (0x4E00, 0x9FFF), (0xFE00, 0xFFFF), (0x1F300, 0x1FAFF), (0x10FF00, 0x10FFFF))  # fmt: skip


def prepare(folder: Path) -> Attempt:
    """Tries with one batch of texts each."""
    embedder = Embedder(TINY_PACK, weights="fp32", threads=1)

    def attempt(rng: random.Random) -> None:
        texts = file_texts(folder, rng) if rng.random() < 0.4 else [text(rng) for _ in range(rng.randint(1, 5))]
        vectors = embedder.encode(texts).codes
        check(vectors.shape == (len(texts), embedder.dimensions), f"{len(texts)} texts, shape {vectors.shape}")
        check_unit(vectors)
        number = rng.randrange(len(texts))
        check_alone(embedder, texts[number], vectors[number])

    return attempt


def file_texts(folder: Path, rng: random.Random) -> list[str]:
    """Texts of a file with changed bytes."""
    suffix = rng.choice(list(FILES))
    path = folder / f"texts{suffix}"
    path.write_bytes(mutate_bytes(FILES[suffix], rng))
    return read_texts(str(path)).texts


def text(rng: random.Random) -> str:
    """A text of characters of a few blocks, sometimes long."""
    blocks = [rng.choice(BLOCKS) for _ in range(2)]
    length = rng.choice((0, 1, 2, 30, 500, 20_000))
    characters = "".join(chr(rng.randint(*rng.choice(blocks))) for _ in range(min(length, 500)))
    return rng.choice((characters * max(1, length // 500), characters + rng.choice(STRINGS), rng.choice(STRINGS)))


FUZZER = Fuzzer("texts", 1500, prepare)
