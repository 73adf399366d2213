"""Cache of reference vectors: files named by a digest of checkpoint, adapters, task, prompt and inputs.

The vectors take minutes to hours to compute. Damaged files are computed again, with a warning in the log.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.host.user_cache import user_cache
from embedpack.inputs.prompt_rules import PromptOrPrefix, as_prompt
from embedpack.pack.input_recipes import Prompt
from embedpack.storage.atomic import disk_errors
from embedpack.storage.safetensors import open_safetensors, write_safetensors
from embedpack.vectors.arrays import Float32
from embedpack.vectors.multi_embeddings import offsets_of
from embedpack_export.reference.protocol import Input

# Part of every digest; its number is raised when the reference itself is changed.
FORMAT = "embedpack-reference-2"

logger = logging.getLogger("embedpack")


def default_cache() -> Path | None:
    """Folder in the user's cache; None: there is none."""
    cache = user_cache()
    return None if cache is None else cache / "reference"


@dataclass(frozen=True)
class CacheKey:
    """Everything that determines a list of vectors."""

    fingerprint: str  # fingerprint of the checkpoint, adapters, prompts and pooling
    task: str  # task whose adapter is applied
    prompt: PromptOrPrefix  # prompt of every text
    inputs: Sequence[Input]

    def digest(self, kind: str) -> str:
        """SHA-256 of the key for "single" or "multi" vectors, in hex; images by their content, not their path."""
        known = as_prompt(self.prompt)
        # Files of prompts without other rules keep their names.
        prompt = known.prefix if known == Prompt(prefix=known.prefix) else msgspec.to_builtins(known)
        digest = hashlib.sha256(json.dumps([FORMAT, kind, self.fingerprint, self.task, prompt]).encode())
        for item in self.inputs:
            content = _content(item)
            digest.update(f"{type(item) is str}:{len(content)}:".encode() + content)
        return digest.hexdigest()


def _content(item: Input) -> bytes:
    """Bytes that determine the vectors of an input."""
    if isinstance(item, str):
        return item.encode()
    return item.read_bytes() if isinstance(item, Path) else str(item.shape).encode() + item.tobytes()


class ReferenceCache:
    """Files of vectors in a folder; None: vectors are not kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def single(self, key: CacheKey, compute: Callable[[], Float32]) -> Float32:
        """Single vectors, float32 [inputs, dimensions], read or computed.

        Raises:
            InputError, CapacityError: the folder cannot be written.
        """
        (vectors,) = self._arrays(key, "single", ("vectors",), lambda: (compute(),))
        return vectors

    def multi(self, key: CacheKey, compute: Callable[[], list[Float32]]) -> list[Float32]:
        """Multi-vectors, for each input float32 [tokens, dimensions], read or computed.

        Raises:
            InputError, CapacityError: the folder cannot be written.
        """

        def joined() -> tuple[npt.NDArray[Any], ...]:
            rows = compute()
            return np.concatenate(rows), offsets_of([len(row) for row in rows])

        vectors, offsets = self._arrays(key, "multi", ("vectors", "offsets"), joined)
        return [vectors[start:stop] for start, stop in pairwise(offsets.tolist())]

    def _arrays(
        self, key: CacheKey, kind: str, names: Sequence[str], compute: Callable[[], tuple[npt.NDArray[Any], ...]]
    ) -> list[npt.NDArray[Any]]:
        if self._folder is None:
            return list(compute())
        digest = key.digest(kind)
        path = self._folder / f"{digest}.safetensors"
        if path.is_file():
            try:
                return _read(path, digest, names, len(key.inputs))
            except InputError as damage:
                logger.warning("%s; it is computed again", damage)
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        arrays = compute()
        write_safetensors(path, dict(zip(names, arrays, strict=True)), {"key": digest, "sha256": _sha256(arrays)})
        return list(arrays)


def _read(path: Path, digest: str, names: Sequence[str], count: int) -> list[npt.NDArray[Any]]:
    """Read the arrays of a file; raises InputError if the file was not written for this digest, or is damaged."""
    file = open_safetensors(path)
    if set(file.tensors) != set(names) or file.metadata.get("key") != digest:
        raise InputError(f"{path}: its key is that of other vectors")
    arrays = [file.tensors[name].raw() for name in names]
    if file.metadata.get("sha256") != _sha256(arrays):
        raise InputError(f"{path}: its vectors are damaged")
    if len(arrays[-1]) != count + (len(names) > 1):
        raise InputError(f"{path}: its vectors are not those of {count} inputs")
    return arrays


def _sha256(arrays: Sequence[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
