"""Vectors of the reference, kept between runs: each file is named after what its vectors were made of.

Computing them takes minutes to hours, and nothing changes them but the checkpoint, the adapter, the prompt and the
texts, which are all part of the name. A file that is damaged is computed again, and the log says so.
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

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError
from embedpack.host.user_cache import user_cache
from embedpack.storage.atomic import disk_errors
from embedpack.storage.safetensors import open_safetensors, write_safetensors
from embedpack.vectors.codes import Float32
from embedpack.vectors.multi_embeddings import offsets_of
from embedpack_export.evaluation.sets.data import Input

# Part of every name: raised when the reference itself is changed.
FORMAT = "embedpack-reference-1"

logger = logging.getLogger("embedpack")


def default_cache() -> Path | None:
    """Folder in the user's cache; None: there is none."""
    cache = user_cache()
    return None if cache is None else cache / "reference"


@dataclass(frozen=True)
class Question:
    """What vectors are asked for.

    Attributes:
        fingerprint: of the plan: checkpoint, adapters, prompts, pooling.
        task: whose adapter is beside the weights.
        prompt: in front of every text.
        inputs: texts, and files of images.
    """

    fingerprint: str
    task: str
    prompt: str
    inputs: Sequence[Input]

    def key(self, kind: str) -> str:
        """64 hex digits that no other question has; of an image its content counts, not its path."""
        digest = hashlib.sha256(json.dumps([FORMAT, kind, self.fingerprint, self.task, self.prompt]).encode())
        for item in self.inputs:
            content = item.read_bytes() if isinstance(item, Path) else item.encode()
            digest.update(f"{type(item) is str}:{len(content)}:".encode() + content)
        return digest.hexdigest()


class ReferenceCache:
    """Files of vectors in a folder; None as the folder: nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def single(self, question: Question, compute: Callable[[], Float32]) -> Float32:
        """Single vectors, float32 [inputs, dimensions], read or computed.

        Raises:
            InputError, CapacityError: the folder cannot be written.
        """
        (vectors,) = self._found(question, "single", ("vectors",), lambda: (compute(),))
        return vectors

    def multi(self, question: Question, compute: Callable[[], list[Float32]]) -> list[Float32]:
        """Multi-vectors, for each input float32 [tokens, dimensions], read or computed.

        Raises:
            InputError, CapacityError: the folder cannot be written.
        """

        def joined() -> tuple[npt.NDArray[Any], ...]:
            found = compute()
            return np.concatenate(found), offsets_of([len(item) for item in found])

        vectors, offsets = self._found(question, "multi", ("vectors", "offsets"), joined)
        return [vectors[start:stop] for start, stop in pairwise(offsets.tolist())]

    def _found(
        self,
        question: Question,
        kind: str,
        names: Sequence[str],
        compute: Callable[[], tuple[npt.NDArray[Any], ...]],
    ) -> list[npt.NDArray[Any]]:
        if self._folder is None:
            return list(compute())
        key = question.key(kind)
        path = self._folder / f"{key}.safetensors"
        if path.is_file():
            try:
                return _read(path, key, names, len(question.inputs))
            except InputError as damage:
                logger.warning("%s; it is computed again", damage)
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        arrays = compute()
        write_safetensors(path, dict(zip(names, arrays, strict=True)), {"key": key, "sha256": _digest(arrays)})
        return list(arrays)


def _read(path: Path, key: str, names: Sequence[str], count: int) -> list[npt.NDArray[Any]]:
    """The arrays of a file.

    Raises:
        InputError: they are not what was written for that key.
    """
    file = open_safetensors(path)
    if set(file.tensors) != set(names) or file.metadata.get("key") != key:
        raise InputError(f"{path}: not the vectors that its name says")
    arrays = [file.tensors[name].raw() for name in names]
    if file.metadata.get("sha256") != _digest(arrays):
        raise InputError(f"{path}: its vectors are damaged")
    if len(arrays[-1]) != count + (len(names) > 1):
        raise InputError(f"{path}: vectors of another number of inputs than {count}")
    return arrays


def _digest(arrays: Sequence[npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
