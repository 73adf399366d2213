"""Writer of safetensors files in chunks; a file may be larger than the memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedpack.progress import Progress
from embedpack.storage.atomic import atomic_file
from embedpack.vectors.arrays import Float32

Dtype = Literal["BF16", "F16", "F32"]

CHUNK = 1 << 20
ITEM_BYTES: dict[str, int] = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True)
class Tensor:
    """A tensor to write; `chunks` yields its values in order."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype
    chunks: Callable[[], Iterator[Float32]]

    @property
    def size(self) -> int:
        """Number of bytes in the file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write_tensors(path: Path, tensors: Sequence[Tensor], progress: Progress) -> None:
    """Write a file atomically, tensors in the order of their names."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in ordered:
        span = [offset, offset + tensor.size]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": span}
        offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered:
            written = sum(stream.write(_encode(chunk, tensor.dtype)) for chunk in tensor.chunks())
            assert written == tensor.size, tensor.name
            progress.advance(1)


def to_bfloat16(values: Float32) -> npt.NDArray[np.uint16]:
    """Bit patterns of finite values in bfloat16, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    return rounded.astype(np.uint16)


def _encode(values: Float32, dtype: Dtype) -> memoryview:
    if dtype == "BF16":
        return to_bfloat16(values).data
    return np.ascontiguousarray(values, np.float16 if dtype == "F16" else np.float32).data
