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
# Large tensors begin on a page, so that they can be mapped; small ones are packed more densely.
PAGE = 4096
LINE = 64


class WeightStore:
    """Writes tensors to `weights/<group>.bin` below `folder` and hands out references to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[tuple[str, str, tuple[int, ...]], ir.ExternalTensor] = {}

    def add(
        self, name: str, group: str, chunks: Iterable[npt.NDArray[Any]], dtype: npt.DTypeLike, shape: tuple[int, ...]
    ) -> ir.ExternalTensor:
        """Append a tensor.

        Args:
            name: name of the initializer.
            group: file that the tensor goes to, without folder and ending.
            chunks: arrays whose bytes, one after the other, are the tensor.
            dtype: its type.
            shape: its shape.

        Returns:
            A reference; to an equal tensor written before, if there is one in the group.

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
                if key in self._seen:
                    stream.truncate(end)
                else:
                    self._seen[key] = self._reference(name, location, offset, length, dtype, shape)
        found = self._seen[key]
        return self._reference(name, location, int(found.offset or 0), length, dtype, shape)

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
