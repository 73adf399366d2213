"""npz files: what numpy reads, and damaged or hostile files."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.errors import InputError
from embedpack.storage.npz import is_npz, read_npz, write_npz

ARRAYS: dict[str, npt.NDArray[Any]] = {
    "codes": np.arange(6, dtype=np.int8).reshape(2, 3),
    "text": np.array("words"),
    "none": np.zeros((0, 4), np.float32),
}


def header(descr: str, shape: str) -> bytes:
    """The .npy header of an array, version 1."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def test_numpy_reads_it_and_it_reads_what_numpy_writes(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz") as loaded:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], array)
    np.savez(tmp_path / "b.npz", **ARRAYS, fortran=np.asfortranarray(ARRAYS["codes"]))  # type: ignore[arg-type]
    read = read_npz(tmp_path / "b.npz")
    for name, array in (ARRAYS | {"fortran": ARRAYS["codes"]}).items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, ARRAYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"a.npy": header("'|O'", "(1,)") + b"cos\nsystem\n."}, "does not fill its|Object arrays"),
        ({"a.npy": header("'<f4'", "(1000000000000, 384)")}, "a.npy of shape .* does not fill its 0 bytes"),
        ({"a.npy": header("'<f4'", "(-1, 4)") + bytes(16)}, "does not fill"),
        ({"a.npy": header("'<f4'", "(2,)") + bytes(9)}, "does not fill its 9 bytes"),
        ({"a.npy": header("__import__('os')", "(2,)")}, ""),
        ({"a.npy": b"no array"}, "magic string"),
        ({"run.py": b"print()"}, "the entry 'run.py' is no array"),
    ],
)
def test_hostile_arrays(entry: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", entry)
    with pytest.raises(InputError, match=f"not a valid npz file: .*({message}).*; copy it again"):
        read_npz(path)


def test_a_compressed_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    content = header("'|u1'", "(100000000,)") + bytes(10**7)
    path = archive(tmp_path / "a.npz", {"a.npy": content}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="its arrays are compressed"):
        read_npz(path)


@pytest.fixture(scope="module")
def whole() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **ARRAYS)  # type: ignore[arg-type]
    return stream.getvalue()


@given(data=st.data())
def test_damaged_files_are_one_kind_of_error(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    with contextlib.suppress(InputError):  # no other exception
        read_npz(path)


def test_is_npz(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(whole)
    (tmp_path / "b.npz").write_bytes(b"\x10" + bytes(20))
    assert [is_npz(tmp_path / name) for name in ("a.npz", "b.npz", "none.npz", ".")] == [True, False, False, False]
