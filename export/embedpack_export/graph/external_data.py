"""External data of the graphs: tensors streamed into a few files, equal tensors stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.storage.atomic import disk_errors

FOLDER = "weights"
# Alignment of large tensors, so that they can be mapped, and of small ones.
PAGE = 4096
LINE = 64


class WeightStore:
    """Tensors in `weights/<group>.bin` below `folder`; equal tensors of a group are stored once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stored: dict[tuple[str, str, tuple[int, ...]], ir.ExternalTensor] = {}

    def add(
        self, name: str, group: str, chunks: Iterable[npt.NDArray[Any]], dtype: npt.DTypeLike, shape: tuple[int, ...]
    ) -> ir.ExternalTensor:
        """Append the concatenated bytes of `chunks` as an initializer to a group, a file without folder and suffix.

        Returns a reference to the tensor, or to an equal tensor of the group that was written before.

        Raises:
            CapacityError, InputError: the file cannot be written.
        """
        location = f"{FOLDER}/{group}.bin"
        path = self.folder / location
        dtype = np.dtype(dtype)
        length = int(np.prod(shape)) * dtype.itemsize
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
            path.touch()
            with path.open("r+b") as stream:
                end = stream.seek(0, 2)
                offset = end + -end % (PAGE if length >= PAGE else LINE)
                stream.write(b"\0" * (offset - end))
                digest = hashlib.sha256()
                for chunk in chunks:
                    data = np.ascontiguousarray(chunk, dtype).data
                    digest.update(data)
                    stream.write(data)
                if stream.tell() != offset + length:
                    raise AssertionError(f"{name}: {stream.tell() - offset} bytes written, {length} announced")
                key = (group, f"{digest.hexdigest()}{dtype}", shape)
                if key in self._stored:
                    stream.truncate(end)
                else:
                    self._stored[key] = self._reference(name, location, offset, length, dtype, shape)
        stored = self._stored[key]
        return self._reference(name, location, int(stored.offset or 0), length, dtype, shape)

    def _reference(
        self, name: str, location: str, offset: int, length: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> ir.ExternalTensor:
        return ir.ExternalTensor(
            location,
            offset,
            length,
            ir.DataType.from_numpy(dtype),
            shape=ir.Shape(shape),
            name=name,
            base_dir=self.folder,
        )
