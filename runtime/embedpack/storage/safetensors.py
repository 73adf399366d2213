"""Reader and writer of the safetensors format.

8 bytes little-endian header length n, n bytes of JSON {name: {dtype, shape, data_offsets}}, then the bytes of the
tensors without holes (format: README of huggingface/safetensors). Rows are read with plain reads, not through a memory
map, so the resident memory of a reader is that of its rows; `mapped` returns a memory map. A file is untrusted until
its header is checked: all sizes are verified against the file's length before anything is allocated.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import CapacityError, EmbedpackError, InputError, failed
from embedpack.storage.atomic import atomic_file

MAX_HEADER_BYTES = 100_000_000

# numpy has no bfloat16 and no 8-bit floats: they are read as bit patterns.
NUMPY_DTYPES: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
    "F8_E4M3": "|u1", "F8_E5M2": "|u1", "U64": "<u8", "U32": "<u4", "U16": "<u2",
}  # fmt: skip
BIT_PATTERNS = frozenset({"BF16", "F8_E4M3", "F8_E5M2"})
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class StoredTensor:
    """Entry of a tensor in a file, without its data; `dtype` as in the file, e.g. "F32", `start` its first byte."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int

    def raw(self) -> npt.NDArray[Any]:
        """All values in the stored dtype (bfloat16 as uint16 bit patterns)."""
        return self._read(math.prod(self.shape), self.start).reshape(self.shape)

    def mapped(self) -> npt.NDArray[Any]:
        """All values as a read-only memory map: read from disk when used, shared between processes.

        If the file becomes shorter while it is mapped, an access ends the process; a file that `write_safetensors`
        replaces stays valid. InputError if it cannot be read, or has become shorter since its header was checked.
        """
        if 0 in self.shape:
            # Empty ranges cannot be mapped.
            return self.raw()
        try:
            return np.memmap(self.path, np.dtype(NUMPY_DTYPES[self.dtype]), "r", self.start, self.shape)
        except ValueError as cause:
            raise self._too_short() from cause
        except OSError as cause:
            raise InputError(f"{self.path}: {failed('read', cause)}") from cause

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows `start:stop` of the first axis of a floating-point tensor, as float32."""
        assert 0 <= start <= stop <= self.shape[0]
        row = math.prod(self.shape[1:])
        offset = self.start + start * row * np.dtype(NUMPY_DTYPES[self.dtype]).itemsize
        values = self._read((stop - start) * row, offset)
        return _to_float32(self.dtype, values).reshape(stop - start, *self.shape[1:])

    def rows_at(self, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Rows `indices` of the first axis of a floating-point tensor, as float32; InputError as `mapped`."""
        return _to_float32(self.dtype, np.asarray(self.mapped()[indices]))

    def part(self, index: int) -> StoredTensor:
        """Element `index` of the first axis as a tensor of its own, without a copy; InputError if there is none."""
        if not self.shape or not 0 <= index < self.shape[0]:
            raise InputError(f"{self.path}: {self.name} of the shape {list(self.shape)} has no part {index}")
        shape = self.shape[1:]
        size = math.prod(shape) * np.dtype(NUMPY_DTYPES[self.dtype]).itemsize
        return replace(self, name=f"{self.name}[{index}]", shape=shape, start=self.start + index * size)

    def blocks(self, count: int) -> list[StoredTensor]:
        """Equal blocks of rows as tensors of their own, without a copy; InputError if the rows are no such blocks."""
        if not self.shape or self.shape[0] % count:
            raise InputError(
                f"{self.path}: {self.name} has the shape {list(self.shape)}, whose rows are no {count} equal blocks"
            )
        rows, values = self.shape[0] // count, math.prod(self.shape) // count
        size = values * np.dtype(NUMPY_DTYPES[self.dtype]).itemsize
        return [
            replace(
                self,
                name=f"{self.name}[{index * rows}:{(index + 1) * rows}]",
                shape=(rows, *self.shape[1:]),
                start=self.start + index * size,
            )
            for index in range(count)
        ]

    def float32(self) -> npt.NDArray[np.float32]:
        """All values of a floating-point tensor, as float32."""
        return _to_float32(self.dtype, self.raw())

    def _read(self, count: int, offset: int) -> npt.NDArray[Any]:
        try:
            values = np.fromfile(self.path, np.dtype(NUMPY_DTYPES[self.dtype]), count, offset=offset)
        except OSError as cause:
            raise InputError(f"{self.path}: {failed('read', cause)}") from cause
        if len(values) != count:
            raise self._too_short()
        return values

    def _too_short(self) -> InputError:
        return InputError(f"{self.path}: {self.name} ends too early; was the file changed?")


@dataclass(frozen=True)
class SafetensorsFile:
    """Checked header of a file: its tensors and metadata by name."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def _to_float32(dtype: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict from JSON pairs (`object_pairs_hook`); raise ValueError if a key occurs twice."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key!r} occurs twice")
        values[key] = value
    return values


def open_safetensors(path: Path, error: type[EmbedpackError] = InputError) -> SafetensorsFile:
    """Read the header of a file; `error` if the file is missing, or the header does not describe its bytes exactly."""
    try:
        return _read_header(path)
    except OSError as cause:
        raise error(f"{path}: {failed('read', cause)}") from cause
    except MemoryError as cause:
        raise CapacityError(f"{path}: its header does not fit the memory; free some") from cause
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise error(f"{path}: not a valid safetensors file: {cause}; copy or download it again") from cause


def _read_header(path: Path) -> SafetensorsFile:
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError("it is no regular file")  # opening a pipe would wait for a writer
    size = status.st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > size - 8:
            raise ValueError(f"the file has {size} bytes, too few for the header length it states")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"the header has {length} bytes, at most {MAX_HEADER_BYTES} are read")
        header = json.loads(stream.read(length).decode("utf-8"), object_pairs_hook=unique_keys)
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ is not a JSON object of strings")
    begin = 8 + length
    spans = {name: _checked_span(name, entry) for name, entry in header.items()}
    _check_cover(sorted(spans.values()), size - begin)
    tensors = {
        name: StoredTensor(path, name, header[name]["dtype"], tuple(header[name]["shape"]), begin + first)
        for name, (first, _) in spans.items()
    }
    return SafetensorsFile(tensors, metadata)


def _checked_span(name: str, entry: Any) -> tuple[int, int]:
    """First byte of a tensor and the one after its last; checks that dtype and shape fill them exactly."""
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} needs dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in tuple(NUMPY_DTYPES):
        raise ValueError(f"tensor {name!r} has the data type {dtype}; known: {', '.join(NUMPY_DTYPES)}")
    if not all(
        isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)
        for numbers in (shape, offsets)
    ):
        raise ValueError(f"tensor {name!r} has a shape or offset that is not a natural number")
    if len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has {len(offsets)} data_offsets, not 2")
    first, last = offsets
    itemsize = np.dtype(NUMPY_DTYPES[dtype]).itemsize
    if math.prod(shape) * itemsize != last - first:
        raise ValueError(f"tensor {name!r} of shape {shape} and type {dtype} does not fill {last - first} bytes")
    # numpy counts an axis of length 0 as 1 when it checks that an array is addressable.
    if len(shape) > 64 or math.prod(length or 1 for length in shape) * itemsize >= 2**63:
        raise ValueError(f"tensor {name!r} has the shape {shape}, which no array can have")
    return first, last


def _check_cover(spans: list[tuple[int, int]], data_bytes: int) -> None:
    end = 0
    for first, last in spans:
        if first != end:
            raise ValueError(f"the data has a hole or an overlap at byte {min(first, end)}")
        end = last
    if end != data_bytes:
        raise ValueError(f"the header describes {end} bytes of data, the file holds {data_bytes}")


def write_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata to a file, atomically; InputError or CapacityError if it cannot be written."""
    names = {np.dtype(numpy): name for name, numpy in NUMPY_DTYPES.items() if name not in BIT_PATTERNS}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            stream.write(np.ascontiguousarray(array).data)
