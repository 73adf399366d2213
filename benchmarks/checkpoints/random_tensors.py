"""Files of random tensors in bfloat16, written in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.checkpoints.v4.stream import Tensor, write_tensors
from benchmarks.checkpoints.v4.values import Normals
from embedpack.progress import Progress


@dataclass(frozen=True)
class RandomTensor:
    """Name and shape of a tensor, with the mean and the standard deviation of its values."""

    name: str
    shape: tuple[int, ...]
    deviation: float
    mean: float = 0.0


def write_random_tensors(path: Path, tensors: Sequence[RandomTensor], seed: int) -> None:
    """Write a safetensors file.

    Raises:
        EmbedpackError: it cannot be written.
    """
    normals = Normals(seed)
    filled = [
        Tensor(each.name, each.shape, "BF16", partial(normals.chunks, each.name, each.shape, each.deviation, each.mean))
        for each in tensors
    ]
    with Progress(path.name, len(filled)) as progress:
        write_tensors(path, filled, progress)
