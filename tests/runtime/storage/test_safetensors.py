"""Attacks on the safetensors reader, after those that the safetensors project ships; then what it reads and writes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import InputError, PackError
from embedpack.storage.safetensors import NUMPY_DTYPES, open_safetensors, write_safetensors

FOUR_BYTES: dict[str, Any] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def one(**changes: object) -> bytes:
    """A header with one tensor `a` of four bytes, changed."""
    return json.dumps({"a": {**FOUR_BYTES, **changes}}).encode()


def write(path: Path, header: bytes, data: bytes = b"\0" * 4, length: int | None = None) -> Path:
    stated = len(header) if length is None else length
    path.write_bytes(stated.to_bytes(8, "little") + header + data)
    return path


def refusal(path: Path) -> str:
    """Fault in the reader's message for a file, without the constant parts of the message."""
    with pytest.raises(InputError) as caught:
        open_safetensors(path)
    prefix, suffix = f"{path}: not a valid safetensors file: ", "; copy or download it again"
    message = str(caught.value)
    assert message.startswith(prefix)
    assert message.endswith(suffix)
    return message[len(prefix) : -len(suffix)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


KNOWN = ", ".join(NUMPY_DTYPES)
NO_SHAPE = "tensor 'a' has a shape or offset that is not a natural number"
NO_METADATA = "__metadata__ is not a JSON object of strings"
NO_FIELDS = "tensor 'a' needs dtype, shape and data_offsets"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        pytest.param(b"", "Expecting value: line 1 column 1 (char 0)", id="empty_header"),
        pytest.param(b"[]", "the header is not a JSON object", id="list"),
        pytest.param(b"null", "the header is not a JSON object", id="null"),
        pytest.param(b'{"a": ', "Expecting value: line 1 column 7 (char 6)", id="json_cut_short"),
        pytest.param(
            b'{"\xff": 1}', "'utf-8' codec can't decode byte 0xff in position 2: invalid start byte", id="not_utf8"
        ),
        pytest.param(b'{"a": {}, "a": {}}', "the key 'a' occurs twice", id="duplicate_tensor"),
        pytest.param(b'{"a": {"dtype": 1, "dtype": 1}}', "the key 'dtype' occurs twice", id="duplicate_field"),
        pytest.param(b'{"a": []}', NO_FIELDS, id="tensor_is_a_list"),
        pytest.param(b'{"a": null}', NO_FIELDS, id="tensor_is_null"),
        pytest.param(b'{"a": {"shape": [1], "data_offsets": [0, 4]}}', NO_FIELDS, id="no_dtype"),
        pytest.param(b'{"a": {"dtype": "F32", "data_offsets": [0, 4]}}', NO_FIELDS, id="no_shape"),
        pytest.param(b'{"a": {"dtype": "F32", "shape": [1]}}', NO_FIELDS, id="no_offsets"),
        pytest.param(one(dtype="F4"), f"tensor 'a' has the data type F4; known: {KNOWN}", id="unknown_dtype"),
        pytest.param(one(dtype=["F32"]), f"tensor 'a' has the data type ['F32']; known: {KNOWN}", id="dtype_is_a_list"),
        pytest.param(one(dtype=None), f"tensor 'a' has the data type None; known: {KNOWN}", id="dtype_is_null"),
        pytest.param(one(shape=[-1]), NO_SHAPE, id="negative_shape"),
        pytest.param(one(shape=[-1, -1]), NO_SHAPE, id="negative_shapes_with_a_positive_product"),
        pytest.param(one(shape=[1.0]), NO_SHAPE, id="float_shape"),
        pytest.param(one(shape=[True]), NO_SHAPE, id="bool_shape"),
        pytest.param(one(shape="1"), NO_SHAPE, id="string_shape"),
        pytest.param(one(shape=1), NO_SHAPE, id="int_shape"),
        pytest.param(one(data_offsets=[-4, 0]), NO_SHAPE, id="negative_offset"),
        pytest.param(one(data_offsets=["0", "4"]), NO_SHAPE, id="string_offsets"),
        pytest.param(one(data_offsets=[0, 4, 8]), "tensor 'a' has 3 data_offsets, not 2", id="three_offsets"),
        pytest.param(one(data_offsets=[0]), "tensor 'a' has 1 data_offsets, not 2", id="one_offset"),
        pytest.param(
            one(data_offsets=[4, 0]),
            "tensor 'a' of shape [1] and type F32 does not fill -4 bytes",
            id="end_before_start",
        ),
        pytest.param(one(shape=[2]), "tensor 'a' of shape [2] and type F32 does not fill 4 bytes", id="too_few_bytes"),
        pytest.param(
            one(shape=[2**62, 4, 1]),
            "tensor 'a' of shape [4611686018427387904, 4, 1] and type F32 does not fill 4 bytes",
            id="shape_that_overflows_64_bits",
        ),
        pytest.param(
            one(shape=[2**62, 0], data_offsets=[0, 0]),
            "tensor 'a' has the shape [4611686018427387904, 0], which no array can have",
            id="absurd_shape_of_nothing",
        ),
        pytest.param(
            one(shape=[1] * 65), f"tensor 'a' has the shape {[1] * 65}, which no array can have", id="too_many_axes"
        ),
        pytest.param(one(data_offsets=[1, 5]), "the data has a hole or an overlap at byte 0", id="hole_at_the_start"),
        pytest.param(
            json.dumps({"a": FOUR_BYTES, "b": FOUR_BYTES}).encode(),
            "the data has a hole or an overlap at byte 0",
            id="overlap",
        ),
        pytest.param(
            json.dumps({"a": FOUR_BYTES, "b": {**FOUR_BYTES, "data_offsets": [8, 12]}}).encode(),
            "the data has a hole or an overlap at byte 4",
            id="hole",
        ),
        pytest.param(b"{}", "the header describes 0 bytes of data, the file holds 4", id="bytes_of_no_tensor"),
        pytest.param(
            json.dumps({"a": {**FOUR_BYTES, "shape": [2], "data_offsets": [0, 8]}}).encode(),
            "the header describes 8 bytes of data, the file holds 4",
            id="data_cut_short",
        ),
        pytest.param(b'{"__metadata__": ["a"]}', NO_METADATA, id="metadata_is_a_list"),
        pytest.param(b'{"__metadata__": null}', NO_METADATA, id="metadata_is_null"),
        pytest.param(b'{"__metadata__": {"a": 1}}', NO_METADATA, id="metadata_value_is_a_number"),
    ],
)
def test_hostile_header(path: Path, header: bytes, message: str) -> None:
    assert refusal(write(path, header)) == message


@pytest.mark.parametrize("header", [b"[" * 100_000, b'{"a":' * 100_000])
def test_deeply_nested_header(path: Path, header: bytes) -> None:
    assert "recursion depth" in refusal(write(path, header))


@pytest.mark.parametrize("size", range(8))
def test_file_without_a_whole_header_length(path: Path, size: int) -> None:
    path.write_bytes(b"\0" * size)
    assert refusal(path) == f"the file has {size} bytes, too few for the header length it states"


@pytest.mark.parametrize("length", [3, 2**31, 2**63, 2**64 - 1])
def test_header_longer_than_the_file(path: Path, length: int) -> None:
    write(path, b"{}", b"", length)
    assert refusal(path) == "the file has 10 bytes, too few for the header length it states"


def test_header_over_the_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.storage.safetensors.MAX_HEADER_BYTES", 50)
    write(path, one())
    assert refusal(path) == f"the header has {len(one())} bytes, at most 50 are read"


def test_trailing_bytes(path: Path) -> None:
    write(path, one(), b"\0" * 5)
    assert refusal(path) == "the header describes 4 bytes of data, the file holds 5"


def test_file_cut_short_at_any_byte(path: Path) -> None:
    write_safetensors(path, {"a": np.arange(3, dtype=np.int8), "b": np.ones((2, 2), np.float32)}, {"key": "value"})
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        refusal(path)


@given(content=st.binary(max_size=40), in_header=st.booleans())
def test_random_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, in_header: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content if in_header else content)
    with contextlib.suppress(InputError):
        open_safetensors(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-4, 2**65) | st.floats() | st.sampled_from(["F32", "I8", "a", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "dtype", "shape"]), inner),
    max_leaves=6,
)
ENTRIES = JSON | st.fixed_dictionaries({"dtype": JSON, "shape": JSON, "data_offsets": JSON})
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES)


@given(header=HEADERS, data=st.binary(max_size=8))
def test_any_header_is_refused_or_its_tensors_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, header: object, data: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "header.safetensors", json.dumps(header).encode(), data)
    try:
        tensors = open_safetensors(path).tensors
    except InputError:
        return
    assert sum(tensor.raw().nbytes for tensor in tensors.values()) == len(data)


def test_missing_file(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_safetensors(path)
    assert (
        str(caught.value)
        == f"{path}: cannot be read: No such file or directory; check the path, its permissions and the disk"
    )


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_safetensors(tmp_path)
    assert (
        str(caught.value) == f"{tmp_path}: cannot be read: Is a directory; check the path, its permissions and the disk"
    )


def test_error_is_of_the_callers_kind(path: Path) -> None:
    with pytest.raises(PackError):
        open_safetensors(path, PackError)
    with pytest.raises(PackError):
        open_safetensors(write(path, b"[]"), PackError)


# Reading and writing.


ARRAYS: dict[str, npt.NDArray[Any]] = {
    "f64": np.array([[1.5, -2.0]], np.float64),
    "f32": np.arange(6, dtype=np.float32).reshape(3, 2),
    "f16": np.array([0.1, 65504], np.float16),
    "i64": np.array([-(2**63), 2**63 - 1]),
    "i32": np.array([[1], [2]], np.int32),
    "i16": np.array([], np.int16),
    "i8": np.array(-5, np.int8),
    "u8": np.zeros((2, 0, 3), np.uint8),
    "u16": np.array([1, 65535], np.uint16),
    "u32": np.array([2**32 - 1], np.uint32),
    "u64": np.array([2**64 - 1], np.uint64),
    "bool": np.array([True, False]),
}


def test_read_is_what_was_written(path: Path) -> None:
    write_safetensors(path, ARRAYS, {"key": "Wert ü"})
    file = open_safetensors(path)
    assert file.metadata == {"key": "Wert ü"}
    assert list(file.tensors) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        found = file.tensors[name].raw()
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)


def test_mapped_is_what_was_written_and_cannot_be_changed(path: Path) -> None:
    write_safetensors(path, ARRAYS, {})
    for name, tensor in open_safetensors(path).tensors.items():
        found, expected = tensor.mapped(), ARRAYS[name]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)
        assert isinstance(found, np.memmap) == (expected.size > 0)
        assert not (found.size and found.flags.writeable)


def test_mapped_file_may_be_replaced(path: Path) -> None:
    write_safetensors(path, {"a": np.arange(9)}, {})
    mapped = open_safetensors(path).tensors["a"].mapped()
    write_safetensors(path, {"a": np.zeros(1)}, {})
    assert mapped.tolist() == list(range(9))


def test_array_that_is_not_contiguous_is_written_in_its_order(path: Path) -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    write_safetensors(path, {"columns": array.T, "every_other": array[:, ::2]}, {})
    tensors = open_safetensors(path).tensors
    assert np.array_equal(tensors["columns"].raw(), array.T)
    assert np.array_equal(tensors["every_other"].raw(), array[:, ::2])


def test_data_begins_at_a_multiple_of_eight(path: Path) -> None:
    for length in range(8):
        write_safetensors(path, {"a" * length: np.zeros(1, np.float64)}, {})
        assert open_safetensors(path).tensors["a" * length].start % 8 == 0


def test_no_tensors(path: Path) -> None:
    write_safetensors(path, {}, {})
    assert open_safetensors(path).tensors == {}


def test_spaces_around_the_header_are_allowed(path: Path) -> None:
    assert list(open_safetensors(write(path, one() + b"   ")).tensors) == ["a"]


@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
def test_bfloat16_is_the_upper_half_of_float32(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    bits = np.array(values, np.float32).view(np.uint32) & 0xFFFF0000
    header = one(dtype="BF16", shape=[len(values)], data_offsets=[0, 2 * len(values)])
    path = write(tmp_path_factory.getbasetemp() / "bf16.safetensors", header, (bits >> 16).astype("<u2").tobytes())
    tensor = open_safetensors(path).tensors["a"]
    assert np.array_equal(tensor.float32().view(np.uint32), bits)
    assert tensor.raw().dtype == np.uint16


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize(("start", "stop"), [(0, 5), (0, 1), (2, 4), (4, 5), (3, 3)])
def test_rows_are_those_of_the_whole(path: Path, dtype: str, start: int, stop: int) -> None:
    # Small integers: exact in every type.
    whole = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    stored = (whole.view(np.uint32) >> 16).astype("<u2") if dtype == "BF16" else whole.astype(NUMPY_DTYPES[dtype])
    before = json.dumps({**FOUR_BYTES})
    entry = json.dumps({"dtype": dtype, "shape": whole.shape, "data_offsets": [4, 4 + stored.nbytes]})
    write(path, f'{{"before": {before}, "a": {entry}}}'.encode(), b"\xff" * 4 + stored.tobytes())
    tensor = open_safetensors(path).tensors["a"]
    rows = tensor.rows(start, stop)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, whole[start:stop])
    indices = np.arange(start, stop)[::-2]
    assert tensor.rows_at(indices).dtype == np.float32
    assert np.array_equal(tensor.rows_at(indices), whole[indices])
    assert np.array_equal(tensor.float32(), whole)


def test_file_that_shrinks_after_it_was_opened(path: Path) -> None:
    write_safetensors(path, {"a": np.zeros((4, 2), np.float32)}, {})
    tensor = open_safetensors(path).tensors["a"]
    path.write_bytes(path.read_bytes()[:-1])
    assert not tensor.rows(0, 3).any()
    for read in (tensor.raw, tensor.float32, tensor.mapped, lambda: tensor.rows(3, 4)):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value) == f"{path}: a ends too early; was the file changed?"


def test_file_that_vanishes_after_it_was_opened(path: Path) -> None:
    write_safetensors(path, {"a": np.zeros((4, 2), np.float32)}, {})
    tensor = open_safetensors(path).tensors["a"]
    path.unlink()
    for read in (tensor.raw, tensor.mapped):
        with pytest.raises(InputError) as caught:
            read()
        assert (
            str(caught.value)
            == f"{path}: cannot be read: No such file or directory; check the path, its permissions and the disk"
        )


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1)])
def test_types_without_a_numpy_type_are_read_as_bits(path: Path, dtype: str, size: int) -> None:
    write(path, one(dtype=dtype, shape=[2], data_offsets=[0, 2 * size]), bytes(range(1, 1 + 2 * size)))
    raw = open_safetensors(path).tensors["a"].raw()
    assert raw.dtype.kind == "u"
    assert raw.tobytes() == bytes(range(1, 1 + 2 * size))


def test_rows_of_a_vector(path: Path) -> None:
    write_safetensors(path, {"a": np.arange(5, dtype=np.float32)}, {})
    assert open_safetensors(path).tensors["a"].rows(1, 3).tolist() == [1, 2]


def test_every_type_has_the_size_of_its_name() -> None:
    for name, numpy in NUMPY_DTYPES.items():
        bits = name.partition("_")[0].lstrip("BFIU") if name != "BOOL" else "8"
        assert np.dtype(numpy).itemsize * 8 == int(bits)
