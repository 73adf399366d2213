"""Multi-vectors: ragged codes with their precision, dimensions and space, in memory and on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import Embeddings, InputError
from embedpack.storage.safetensors import write_safetensors
from embedpack.vectors.bit_packing import unpack
from embedpack.vectors.codes import PRECISIONS, Precision, decode, quantize, unit
from embedpack.vectors.multi_embeddings import FILE_FORMAT, MultiEmbeddings, concatenate_multi, offsets_of
from tests.helpers.codebooks import book, coder

DIMENSIONS = 16
COUNTS = st.lists(st.integers(1, 4), max_size=6)
ALL_PRECISIONS = st.sampled_from(PRECISIONS)

METADATA = {"format": FILE_FORMAT, "precision": "int8", "dimensions": "8", "space": "model/task/0"}
CODES = np.arange(40, dtype=np.int8).reshape(5, 8)
OFFSETS = np.array([0, 2, 5])
LARGEST, SMALLEST = np.iinfo(np.int64).max, np.iinfo(np.int64).min


def make(
    counts: Sequence[int],
    precision: Precision = "int8",
    dimensions: int = DIMENSIONS,
    space: str = "model/task/0",
    max_pixels: int | None = None,
) -> MultiEmbeddings:
    """Random multi-vectors of inputs with that many rows each."""
    rng = np.random.default_rng(sum(counts))
    vectors = unit(rng.standard_normal((sum(counts), dimensions)).astype(np.float32))
    codes = quantize(vectors, precision, coder(precision, dimensions))
    codebook = book(precision, dimensions)
    return MultiEmbeddings(codes, offsets_of(counts), precision, dimensions, space, max_pixels, codebook)


def rows_of(multi: MultiEmbeddings) -> list[list[list[float]]]:
    """Codes of each input, as lists."""
    bounds = multi.offsets.tolist()
    return [multi.codes[start:stop].tolist() for start, stop in pairwise(bounds)]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


# As a sequence.


@given(counts=COUNTS, precision=ALL_PRECISIONS)
def test_iteration_gives_every_input_once(counts: list[int], precision: Precision) -> None:
    multi = make(counts, precision)
    parts = list(multi)
    assert len(multi) == len(parts) == len(counts)
    assert [len(part) for part in parts] == [1] * len(counts)
    assert [len(part.codes) for part in parts] == multi.counts.tolist() == counts
    assert [rows_of(part)[0] for part in parts] == rows_of(multi)
    assert multi.nbytes == multi.codes.nbytes == sum(part.nbytes for part in parts)


@given(counts=COUNTS, bounds=st.tuples(*[st.none() | st.integers(-8, 8)] * 2), step=st.sampled_from([None, 1, 2, -1]))
def test_slice_gives_these_inputs(counts: list[int], bounds: tuple[int | None, int | None], step: int | None) -> None:
    multi = make(counts)
    part = multi[slice(*bounds, step)]
    assert rows_of(part) == rows_of(multi)[slice(*bounds, step)]
    assert (part.precision, part.dimensions, part.space) == (multi.precision, multi.dimensions, multi.space)


@given(counts=COUNTS.filter(len), data=st.data())
def test_array_of_integers_gives_these_inputs(counts: list[int], data: st.DataObject) -> None:
    multi = make(counts)
    chosen = data.draw(st.lists(st.integers(-len(counts), len(counts) - 1)))
    assert rows_of(multi[np.array(chosen, np.intp)]) == [rows_of(multi)[index] for index in chosen]


@given(counts=COUNTS, data=st.data())
def test_array_of_booleans_gives_these_inputs(counts: list[int], data: st.DataObject) -> None:
    multi = make(counts)
    chosen = data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts)))
    expected = [rows for rows, kept in zip(rows_of(multi), chosen, strict=True) if kept]
    assert rows_of(multi[np.array(chosen, bool)]) == expected


def test_int_gives_the_one_input() -> None:
    multi = make([2, 1, 3])
    for index in range(-3, 3):
        assert rows_of(multi[index]) == [rows_of(multi)[index]]
        numpy_index: Any = np.int64(index)
        assert rows_of(multi[numpy_index]) == rows_of(multi[index])


def test_neighbours_share_the_codes() -> None:
    multi = make([2, 1, 3])
    assert np.shares_memory(multi[1:].codes, multi.codes)


@pytest.mark.parametrize("index", [3, -4, 100])
def test_input_out_of_range(index: int) -> None:
    with pytest.raises(IndexError) as caught:
        make([2, 1, 3])[index]
    assert str(caught.value) == f"input {index} of 3 multi-vectors"


@pytest.mark.parametrize(
    "index", [np.array([3]), np.array([True, False]), np.array([0.0]), np.array([[0, 1]]), None, (0, 1)]
)
def test_index_that_is_none(index: Any) -> None:
    with pytest.raises(IndexError):
        make([2, 1, 3])[index]


def test_multi_vectors_are_no_one_array() -> None:
    message = "multi-vectors are no one array: inputs differ in their number of rows; use .decode()"
    ragged: Any = make([2, 1])
    for value in (ragged, ragged[0], [ragged]):
        with pytest.raises(TypeError) as caught:
            np.asarray(value)
        assert str(caught.value) == message


@given(counts=COUNTS, precision=ALL_PRECISIONS)
def test_decoded_are_unit_rows_of_each_input(counts: list[int], precision: Precision) -> None:
    multi = make(counts, precision)
    decoded = multi.decode()
    assert [vectors.shape for vectors in decoded] == [(count, DIMENSIONS) for count in counts]
    for vectors, part in zip(decoded, multi, strict=True):
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, decode(part.codes, precision, DIMENSIONS, multi.codebook))
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@given(counts=COUNTS.filter(any), precision=ALL_PRECISIONS, dimensions=st.sampled_from([8, 16]))
def test_codes_are_nested(counts: list[int], precision: Precision, dimensions: int) -> None:
    whole = make(counts, precision)
    cut = whole.truncate(dimensions)
    assert (cut.dimensions, cut.precision, cut.offsets.tolist()) == (dimensions, precision, whole.offsets.tolist())
    values, prefix = unpacked(whole), unpacked(cut)
    if precision in ("float32", "float16") and dimensions < DIMENSIONS:
        values = unit(values[:, :dimensions].astype(np.float32)).astype(values.dtype)
    np.testing.assert_array_equal(prefix, values[:, :dimensions])
    single = Embeddings(whole.codes, precision, DIMENSIONS, whole.space, None, whole.codebook)
    np.testing.assert_array_equal(cut.codes, single.truncate(dimensions).codes)


def unpacked(multi: MultiEmbeddings) -> npt.NDArray[Any]:
    """Values or digits of all rows."""
    if multi.codebook is None:
        return multi.codes
    levels = np.arange(len(multi.codebook.levels[multi.precision]), dtype=np.uint8)  # type: ignore[index]
    return unpack(multi.codes, multi.precision, multi.dimensions, levels)  # type: ignore[arg-type]


@pytest.mark.parametrize("dimensions", [0, 17, -1])
def test_truncations_that_are_not_possible(dimensions: int) -> None:
    with pytest.raises(InputError, match=f"cannot truncate 16 dimensions to {dimensions}; pass 1 to 16"):
        make([2]).truncate(dimensions)


def test_multi_vectors_cannot_be_changed() -> None:
    multi: Any = make([1])
    with pytest.raises(FrozenInstanceError):
        multi.precision = "binary"


# Offsets and codes that do not fit.

HOSTILE_OFFSETS = [
    ([], "offsets of multi-vectors are an array [inputs + 1] of type int64, not [0] of type int64"),
    ([[0, 5]], "offsets of multi-vectors are an array [inputs + 1] of type int64, not [1, 2] of type int64"),
    ([1, 5], "offsets of multi-vectors start at 0, not at 1"),
    ([-1, 5], "offsets of multi-vectors start at 0, not at -1"),
    ([0], "offsets of multi-vectors end at the number of rows, 5, not at 0"),
    ([0, 4], "offsets of multi-vectors end at the number of rows, 5, not at 4"),
    ([0, 2, 6], "offsets of multi-vectors end at the number of rows, 5, not at 6"),
    ([0, LARGEST], f"offsets of multi-vectors end at the number of rows, 5, not at {LARGEST}"),
    ([0, 2, 2, 5], "those of input 1 are 2 and 2"),
    ([0, 0, 5], "those of input 0 are 0 and 0"),
    ([0, 2, 5, 5], "those of input 2 are 5 and 5"),
    ([0, 4, 2, 5], "those of input 1 are 4 and 2"),
    ([0, -2, 5], "those of input 0 are 0 and -2"),
    ([0, LARGEST, SMALLEST, 5], f"those of input 1 are {LARGEST} and {SMALLEST}"),
]


def full(message: str) -> str:
    rule = "offsets of multi-vectors ascend, as every input has at least one row; "
    return rule + message if message.startswith("those") else message


@pytest.mark.parametrize(("offsets", "message"), HOSTILE_OFFSETS)
def test_offsets_that_do_not_fit(offsets: list[Any], message: str) -> None:
    array = np.array(offsets, np.int64)
    assert refusal(lambda: MultiEmbeddings(CODES, array, "int8", 8, "space")) == full(message)


@pytest.mark.parametrize(("offsets", "message"), HOSTILE_OFFSETS)
def test_file_with_offsets_that_do_not_fit(tmp_path: Path, offsets: list[Any], message: str) -> None:
    path = tmp_path / "vectors"
    write_safetensors(path, {"codes": CODES, "offsets": np.array(offsets, np.int64)}, METADATA)
    assert refusal(lambda: MultiEmbeddings.load(path)) == f"{path}: {full(message)}"


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64, np.bool_])
def test_offsets_of_another_type(tmp_path: Path, dtype: type[np.generic]) -> None:
    path = tmp_path / "vectors"
    offsets: Any = np.array([0, 1], dtype)
    message = f"offsets of multi-vectors are an array [inputs + 1] of type int64, not [2] of type {np.dtype(dtype)}"
    assert refusal(lambda: MultiEmbeddings(CODES[:1], offsets, "int8", 8, "space")) == message
    write_safetensors(path, {"codes": CODES[:1], "offsets": offsets}, METADATA)
    assert refusal(lambda: MultiEmbeddings.load(path)) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("codes", "precision", "message"),
    [
        (
            CODES,
            "float32",
            "float32 codes of 8 dimensions are an array [n, 8] of type float32, not [5, 8] of type int8",
        ),
        (CODES[:, :7], "int8", "int8 codes of 8 dimensions are an array [n, 8] of type int8, not [5, 7] of type int8"),
        (CODES[0], "int8", "int8 codes of 8 dimensions are an array [n, 8] of type int8, not [8] of type int8"),
        (
            CODES,
            "int7",
            "unknown precision 'int7'; known: float32, float16, int8, 4bit, 2bit, ternary, binary; "
            "did you mean 'int8'?",
        ),
    ],
)
def test_codes_that_do_not_fit(codes: npt.NDArray[Any], precision: Any, message: str) -> None:
    assert refusal(lambda: MultiEmbeddings(codes, OFFSETS, precision, 8, "space")) == message


# Concatenation.


@given(parts=st.lists(COUNTS, min_size=1, max_size=4), precision=ALL_PRECISIONS)
def test_concatenation_keeps_the_order(parts: list[list[int]], precision: Precision) -> None:
    multis = [make(counts, precision) for counts in parts]
    joined = concatenate_multi(multis)
    assert rows_of(joined) == [rows for multi in multis for rows in rows_of(multi)]
    assert (joined.precision, joined.dimensions, joined.space) == (precision, DIMENSIONS, "model/task/0")
    assert joined.codes.dtype == multis[0].codes.dtype


@given(counts=COUNTS.filter(len), data=st.data())
def test_split_and_concatenated_is_the_same(counts: list[int], data: st.DataObject) -> None:
    multi = make(counts)
    cut = data.draw(st.integers(0, len(counts)))
    joined = concatenate_multi([multi[:cut], multi[cut:]])
    assert np.array_equal(joined.codes, multi.codes)
    assert np.array_equal(joined.offsets, multi.offsets)


def test_nothing_to_concatenate() -> None:
    assert refusal(lambda: concatenate_multi([])) == "there are no embeddings to concatenate; pass at least one part"


@pytest.mark.parametrize(
    "other", [{"precision": "binary"}, {"dimensions": 32}, {"space": "model/other/0"}, {"max_pixels": 50_000}]
)
def test_different_kinds_are_not_concatenated(other: dict[str, Any]) -> None:
    message = "embeddings of different precision, dimensions, space or max_pixels cannot be concatenated; "
    message += "embed them with the same options"
    assert refusal(lambda: concatenate_multi([make([2]), make([2], **other)])) == message


# Files.


@given(
    counts=COUNTS,
    precision=ALL_PRECISIONS,
    space=st.text(st.characters(exclude_categories=["Cs"])),
    mapped=st.booleans(),
)
def test_loaded_is_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], precision: Precision, space: str, mapped: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "multi.safetensors"
    saved = make(counts, precision, space=space)
    saved.save(path)
    loaded = MultiEmbeddings.load(str(path), mapped=mapped)
    assert (loaded.codebook and loaded.codebook.id) == (saved.codebook and saved.codebook.id)
    assert isinstance(loaded.codes, np.memmap) == (mapped and bool(counts))
    assert np.array_equal(loaded.codes, saved.codes)
    assert np.array_equal(loaded.offsets, saved.offsets)
    assert loaded.codes.dtype == saved.codes.dtype
    assert loaded.offsets.dtype == np.int64
    assert (loaded.precision, loaded.dimensions, loaded.space) == (precision, DIMENSIONS, space)


@pytest.mark.parametrize("max_pixels", [None, 1, 602_112, 2**31])
def test_size_of_images_stays_with_the_vectors(tmp_path: Path, max_pixels: int | None) -> None:
    multi = make([2, 1, 3], max_pixels=max_pixels)
    multi[::-1].save(tmp_path / "multi")
    loaded = MultiEmbeddings.load(tmp_path / "multi")
    assert concatenate_multi([loaded[0], loaded[1:]]).max_pixels == max_pixels


def test_some_of_the_inputs_can_be_saved(tmp_path: Path) -> None:
    for part in (make([2, 1, 3])[1:], make([2, 1, 3])[::-2]):
        part.save(tmp_path / "part")
        assert rows_of(MultiEmbeddings.load(tmp_path / "part")) == rows_of(part)


def test_the_same_vectors_make_the_same_file(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make([2, 1, 3]).save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "vectors"
    assert (
        refusal(lambda: make([3]).save(path))
        == f"{path}: cannot be written: No such file or directory; check the path, its permissions and the disk"
    )


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    assert (
        refusal(lambda: MultiEmbeddings.load(path))
        == f"{path}: cannot be read: No such file or directory; check the path, its permissions and the disk"
    )


def test_file_cut_short_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    make([2, 1], "binary", 8).save(path)
    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        assert refusal(lambda: MultiEmbeddings.load(path)).startswith(f"{path}: not a valid safetensors file: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": "embedpack-multi-embeddings-1"},
            f"expected embeddings saved by embedpack ({FILE_FORMAT}), found format 'embedpack-multi-embeddings-1'; "
            "an older embedpack wrote it, embed again",
        ),
        (
            {"format": "embedpack-embeddings-2"},
            f"expected embeddings saved by embedpack ({FILE_FORMAT}), found format 'embedpack-embeddings-2'",
        ),
        ({"format": None}, f"expected embeddings saved by embedpack ({FILE_FORMAT}), found format None"),
        ({"dimensions": "-8"}, "'-8' is not a number of dimensions"),
        (
            {"normalized": "false"},
            "multi-vectors have length 1, not Metric(normalized=False, similarity='cosine', int8_scale=None)",
        ),
        ({"dimensions": None}, "'' is not a number of dimensions"),
        (
            {"dimensions": "16"},
            "int8 codes of 16 dimensions are an array [n, 16] of type int8, not [5, 8] of type int8",
        ),
        ({"precision": None}, "the metadata has no 'precision'"),
        (
            {"precision": "float16"},
            "float16 codes of 8 dimensions are an array [n, 8] of type float16, not [5, 8] of type int8",
        ),
        ({"space": None}, "the metadata has no 'space'"),
        ({"max_pixels": "many"}, "'many' is not a number of pixels"),
        ({"max_pixels": "0"}, "'0' is not a number of pixels"),
        ({"max_pixels": "-5"}, "'-5' is not a number of pixels"),
        ({"max_pixels": "2147483649"}, "'2147483649' is not a number of pixels"),
        ({"max_pixels": ""}, "'' is not a number of pixels"),
    ],
)
def test_file_of_another_kind(tmp_path: Path, change: dict[str, str | None], message: str) -> None:
    path = tmp_path / "vectors"
    metadata = {key: value for key, value in {**METADATA, **change}.items() if value is not None}
    write_safetensors(path, {"codes": CODES, "offsets": OFFSETS}, metadata)
    assert refusal(lambda: MultiEmbeddings.load(path)) == f"{path}: {message}"


@pytest.mark.parametrize("names", [[], ["codes"], ["offsets"], ["codes", "offsets", "more"]])
def test_file_with_other_tensors(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "vectors"
    write_safetensors(path, dict.fromkeys(names, CODES), METADATA)
    found = ", ".join(names) or "none"
    message = f"expected embeddings saved by embedpack ({FILE_FORMAT}), found the tensors: {found}"
    assert refusal(lambda: MultiEmbeddings.load(path)) == f"{path}: {message}"


def test_floats_of_eight_bits_are_no_binary_codes(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    header = {
        "__metadata__": {**METADATA, "precision": "binary"},
        "codes": {"dtype": "F8_E4M3", "shape": [1, 1], "data_offsets": [0, 1]},
        "offsets": {"dtype": "I64", "shape": [2], "data_offsets": [1, 17]},
    }
    text = json.dumps(header).encode()
    data = b"\0" + np.array([0, 1]).tobytes()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    message = f"expected embeddings saved by embedpack ({FILE_FORMAT}), found 'codes' of type F8_E4M3"
    assert refusal(lambda: MultiEmbeddings.load(path)) == f"{path}: {message}"


def test_single_and_multi_vectors_are_not_taken_for_each_other(
    tmp_path: Path, make_embeddings: Callable[..., Embeddings]
) -> None:
    make([2, 1]).save(tmp_path / "multi")
    make_embeddings(3).save(tmp_path / "single")
    multi, single = "embedpack-multi-embeddings-2", "embedpack-embeddings-2"
    assert refusal(lambda: Embeddings.load(tmp_path / "multi")).endswith(f"({single}), found format '{multi}'")
    assert refusal(lambda: MultiEmbeddings.load(tmp_path / "single")).endswith(f"({multi}), found format '{single}'")
