"""Packs that a fuzzer changes, and the checks of a changed pack that was accepted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from embedpack import Embedder
from embedpack.vectors.arrays import Float32
from tests.fuzz.outcome import check

TEXTS = ("how do i reset the router", "the cat sleeps on the roof, in the rain", "?")
# A batch changes the last digits of float32 vectors.
TOLERANCE = 1e-4


class PackCopy:
    """A copy of a pack in which files are replaced for one try at a time."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(source, folder)

    @property
    def manifest(self) -> Any:
        """Content of pack.json."""
        return json.loads(self.read("pack.json"))

    def read(self, name: str) -> bytes:
        """Content of a file."""
        return (self.folder / name).read_bytes()

    @contextmanager
    def replaced(self, files: Mapping[str, bytes], manifest: Any = None) -> Iterator[Path]:
        """The folder with other files, whose digests and sizes the manifest has; at the end it is as before."""
        before = {name: self.read(name) for name in (*files, "pack.json")}
        manifest = self.manifest if manifest is None else manifest
        for name, content in files.items():
            manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        try:
            self.write({**files, "pack.json": json.dumps(manifest).encode()})
            yield self.folder
        finally:
            self.write(before)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files as they are."""
        for name, content in files.items():
            (self.folder / name).write_bytes(content)


def vectors_of(embedder: Embedder, task: str | None = None) -> Float32:
    """Vectors of TEXTS, checked to be unit vectors, also in other precisions; float32 [texts, dimensions]."""
    embeddings = embedder.encode(list(TEXTS), task=task)
    vectors = embeddings.codes
    check(vectors.shape == (len(TEXTS), embedder.dimensions), f"vectors of shape {vectors.shape}")
    check_unit(vectors)
    for precision in ("int8", "binary"):
        check_unit(embedder.encode(TEXTS[0], task=task, precision=precision).decode())
    return vectors


def check_alone(embedder: Embedder, text: str, vector: Float32) -> None:
    """Check that a text has the same vector alone as in its batch."""
    alone = embedder.encode(text).codes[0]
    check(bool(np.allclose(alone, vector, atol=TOLERANCE)), "the vector of a text depends on its batch")


def check_unit(vectors: Float32) -> None:
    """Check that all vectors have length 1; false for values that are not finite."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    check(bool((np.abs(lengths - 1) < 1e-3).all()), f"lengths {lengths.min()} to {lengths.max()}")
