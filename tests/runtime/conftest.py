"""Fixtures of the runtime's tests: the tiny pack, a copy of it to break, and opened embedders.

Nothing here needs more than the runtime's own dependencies, pytest and hypothesis.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder, Embeddings
from embedpack.vectors.codes import check_precision, quantize, unit
from tests.helpers.codebooks import book, coder
from tests.helpers.tiny_pack import TINY_PACK


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The committed pack; tests only read it."""
    return TINY_PACK


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A copy of the tiny pack, to be broken."""
    folder = tmp_path / "pack"
    shutil.copytree(TINY_PACK, folder)
    return folder


@pytest.fixture
def edit(pack: Path) -> Callable[[Callable[[dict[str, Any]], object]], None]:
    """Changes the manifest of `pack` in place: `edit(lambda manifest: manifest.pop("golden"))`."""

    def apply(change: Callable[[dict[str, Any]], object]) -> None:
        manifest = json.loads((pack / "pack.json").read_bytes())
        change(manifest)
        (pack / "pack.json").write_text(json.dumps(manifest))

    return apply


@pytest.fixture
def replace_file(
    pack: Path, edit: Callable[[Callable[[dict[str, Any]], object]], None]
) -> Callable[[str, bytes], None]:
    """Gives a file of `pack` other content, and the manifest the digest and size of that: only the content is wrong."""

    def apply(name: str, content: bytes) -> None:
        (pack / name).write_bytes(content)
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        edit(lambda manifest: manifest["files"].update({name: entry}))

    return apply


@pytest.fixture(scope="session")
def embedder(tiny: Path) -> Callable[[str], Embedder]:
    """The tiny pack opened with some weights, once in a run; one thread, so that parallel runs do not disturb."""
    return functools.cache(lambda weights: Embedder(tiny, weights=weights, threads=1))


@pytest.fixture(scope="session")
def make_embeddings() -> Callable[..., Embeddings]:
    """Random unit vectors, with those of the arguments of `make` that are named."""

    def make(
        rows: int,
        precision: str = "float32",
        dimensions: int = 64,
        seed: int = 0,
        space: str = "model/task/0",
        max_pixels: int | None = None,
        blocks: tuple[int, ...] = (),
    ) -> Embeddings:
        vectors = unit(np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32))
        known = check_precision(precision)
        codes = quantize(vectors, known, coder(known, dimensions, blocks))
        return Embeddings(codes, known, dimensions, space, max_pixels, book(known, dimensions, blocks))

    return make
