"""Embeddings: codes with their precision, dimensions and space, in memory and on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import Embeddings, InputError, similarity
from embedpack.scoring.exact_search import in_precision_of
from embedpack.storage.safetensors import write_safetensors
from embedpack.vectors.codebook import LOW_BIT, Codebook
from embedpack.vectors.codes import DTYPES, PRECISIONS, Precision, code_width
from embedpack.vectors.embeddings import FILE_FORMAT, concatenate
from tests.helpers.codebooks import book, codebook_of

Make = Callable[..., Embeddings]

METADATA = {"format": FILE_FORMAT, "precision": "int8", "dimensions": "8", "space": "model/task/0"}
CODES = np.arange(16, dtype=np.int8).reshape(2, 8)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


# As a sequence and an array.


@pytest.mark.parametrize("precision", PRECISIONS)
def test_array_is_the_decoded_vectors(make_embeddings: Make, precision: str) -> None:
    embeddings = make_embeddings(5, precision)
    assert np.array_equal(np.asarray(embeddings), embeddings.decode())
    assert np.asarray(embeddings).dtype == np.float32
    assert np.asarray(embeddings, np.float64).dtype == np.float64
    assert embeddings.nbytes == embeddings.codes.nbytes


def test_array_without_a_copy_is_refused(make_embeddings: Make) -> None:
    embeddings = make_embeddings(5, "int8")
    with pytest.raises(ValueError, match="copy=False"):
        np.array(embeddings, copy=False)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_int_gives_the_one_vector(make_embeddings: Make, precision: str) -> None:
    embeddings = make_embeddings(5, precision)
    for row in range(-5, 5):
        assert np.array_equal(embeddings[row].codes, embeddings.codes[row][None])
        numpy_row: Any = np.int64(row)
        assert np.array_equal(embeddings[numpy_row].codes, embeddings[row].codes)


@pytest.mark.parametrize(
    "rows", [slice(None), slice(1, 3), slice(-2, None), slice(None, None, -2), slice(9, 12), slice(0, 0)]
)
def test_slice_gives_these_vectors(make_embeddings: Make, rows: slice) -> None:
    embeddings = make_embeddings(5, "int8")
    assert np.array_equal(embeddings[rows].codes, embeddings.codes[rows])
    assert embeddings[rows].space == embeddings.space


@pytest.mark.parametrize("rows", [[2, 0, 2], [True, False, False, True, False], []])
def test_array_of_rows_gives_these_vectors(make_embeddings: Make, rows: list[int]) -> None:
    embeddings = make_embeddings(5, "binary")
    chosen: npt.NDArray[Any] = np.array(rows, bool if rows and isinstance(rows[0], bool) else np.intp)
    assert np.array_equal(embeddings[chosen].codes, embeddings.codes[chosen])


@pytest.mark.parametrize("row", [5, -6, 100])
def test_row_out_of_range(make_embeddings: Make, row: int) -> None:
    with pytest.raises(IndexError) as caught:
        make_embeddings(5)[row]
    assert str(caught.value) == f"row {row} of 5 embeddings"


def test_iteration_gives_every_vector_once(make_embeddings: Make) -> None:
    embeddings = make_embeddings(5, "int8")
    rows = list(embeddings)
    assert [len(row) for row in rows] == [1] * 5
    assert np.array_equal(concatenate(rows).codes, embeddings.codes)


def test_embeddings_cannot_be_changed(make_embeddings: Make) -> None:
    embeddings: Any = make_embeddings(1)
    with pytest.raises(FrozenInstanceError):
        embeddings.precision = "binary"


@pytest.mark.parametrize(
    ("codes", "precision", "dimensions", "message"),
    [
        (
            np.zeros((2, 8), np.int8),
            "int8",
            16,
            "int8 codes of 16 dimensions are an array [n, 16] of type int8, not [2, 8] of type int8",
        ),
        (
            np.zeros((2, 8), np.float32),
            "int8",
            8,
            "int8 codes of 8 dimensions are an array [n, 8] of type int8, not [2, 8] of type float32",
        ),
        (
            np.zeros((2, 8), np.uint8),
            "binary",
            8,
            "binary codes of 8 dimensions are an array [n, 1] of type uint8, not [2, 8] of type uint8",
        ),
        (
            np.zeros(8, np.float32),
            "float32",
            8,
            "float32 codes of 8 dimensions are an array [n, 8] of type float32, not [8] of type float32",
        ),
        (np.zeros((2, 1), np.uint8), "binary", 12, "binary codes need a multiple of 8 dimensions, not 12"),
    ],
)
def test_codes_that_do_not_fit(codes: npt.NDArray[Any], precision: Precision, dimensions: int, message: str) -> None:
    codebook = book(precision, 16)
    assert refusal(lambda: Embeddings(codes, precision, dimensions, "space", None, codebook)) == message


@pytest.mark.parametrize(
    ("precision", "width", "codebook", "message"),
    [
        ("binary", 2, None, "binary codes need the codebook that made them; pass codebook="),
        ("4bit", 8, None, "4bit codes need the codebook that made them; pass codebook="),
        ("int8", 16, codebook_of(), "precision 'int8' takes no codebook; leave codebook= out"),
        ("float32", 16, codebook_of(), "precision 'float32' takes no codebook; leave codebook= out"),
        ("binary", 2, codebook_of(0, (), 8), "the codebook has 8 dimensions, not 16"),
        (
            "ternary",
            4,
            codebook_of(0, (8, 24), 32),
            "the codebook's rotation can be truncated to 8, 32 dimensions, not to 16",
        ),
    ],
)
def test_codebook_that_does_not_fit(precision: Precision, width: int, codebook: Any, message: str) -> None:
    codes = np.zeros((2, width), DTYPES[precision])
    assert refusal(lambda: Embeddings(codes, precision, 16, "space", None, codebook)) == message


# Truncation.


@pytest.mark.parametrize("dimensions", [8, 40, 64])
@pytest.mark.parametrize("precision", ["int8", "4bit", "2bit", "binary"])
def test_truncated_codes_are_a_prefix(make_embeddings: Make, precision: Precision, dimensions: int) -> None:
    embeddings = make_embeddings(5, precision)
    cut = embeddings.truncate(dimensions)
    assert np.array_equal(cut.codes, embeddings.codes[:, : code_width(precision, dimensions)])
    assert (cut.dimensions, cut.precision, cut.space) == (dimensions, precision, embeddings.space)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_truncated_floats_have_unit_length(make_embeddings: Make, precision: str) -> None:
    cut = make_embeddings(5, precision).truncate(24)
    assert cut.codes.dtype == precision
    assert np.allclose(np.linalg.norm(cut.codes.astype(np.float64), axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("dimensions", [0, -8, 65])
def test_impossible_truncation(make_embeddings: Make, dimensions: int) -> None:
    message = f"cannot truncate 64 dimensions to {dimensions}; pass 1 to 64"
    assert refusal(lambda: make_embeddings(5).truncate(dimensions)) == message


def test_ternary_codes_end_within_a_byte(make_embeddings: Make) -> None:
    embeddings = make_embeddings(5, "ternary")
    cut = embeddings.truncate(8)
    assert cut.codes.shape == (5, 2)
    assert np.array_equal(cut.codes[:, 0], embeddings.codes[:, 0])
    # Three digits, and 1 1 behind them.
    assert np.array_equal(cut.codes[:, 1], embeddings.codes[:, 1] // 9 * 9 + 4)


def test_truncation_within_a_block_of_the_rotation(make_embeddings: Make) -> None:
    embeddings = make_embeddings(5, "2bit", blocks=(16, 48))
    assert embeddings.truncate(16).codes.shape == (5, 4)
    message = "the codebook's rotation can be truncated to 16, 64 dimensions, not to 32"
    assert refusal(lambda: embeddings.truncate(32)) == message


def test_binary_is_truncated_to_whole_bytes(make_embeddings: Make) -> None:
    message = "binary codes need a multiple of 8 dimensions, not 12"
    assert refusal(lambda: make_embeddings(5, "binary").truncate(12)) == message


# Concatenation.


@pytest.mark.parametrize("precision", PRECISIONS)
def test_concatenation_keeps_the_order(make_embeddings: Make, precision: str) -> None:
    parts = [make_embeddings(rows, precision, seed=rows) for rows in (2, 0, 3)]
    joined = concatenate(parts)
    assert np.array_equal(joined.codes, np.concatenate([part.codes for part in parts]))
    assert (joined.precision, joined.dimensions, joined.space) == (precision, 64, "model/task/0")


def test_nothing_to_concatenate() -> None:
    assert refusal(lambda: concatenate([])) == "there are no embeddings to concatenate; pass at least one part"


@pytest.mark.parametrize(
    "other", [{"precision": "int8"}, {"dimensions": 32}, {"space": "model/other/0"}, {"max_pixels": 50_000}]
)
def test_different_kinds_are_not_concatenated(make_embeddings: Make, other: dict[str, Any]) -> None:
    message = "embeddings of different precision, dimensions, space or max_pixels cannot be concatenated; "
    message += "embed them with the same options"
    assert refusal(lambda: concatenate([make_embeddings(2), make_embeddings(2, **other)])) == message


@pytest.mark.parametrize("precision", LOW_BIT)
def test_codes_of_two_codebooks_are_not_concatenated(make_embeddings: Make, precision: str) -> None:
    parts = [make_embeddings(2, precision), make_embeddings(2, precision, blocks=(16, 48))]
    found = ", ".join(sorted(part.codebook.id for part in parts if part.codebook is not None))
    message = f"codes of different codebooks ({found}) cannot be concatenated; embed them again"
    assert refusal(lambda: concatenate(parts)) == message


# Files.


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("blocks", [(), (16, 48)])
@pytest.mark.parametrize("mapped", [False, True])
def test_loaded_is_what_was_saved(
    make_embeddings: Make, tmp_path: Path, precision: str, rows: int, blocks: tuple[int, ...], mapped: bool
) -> None:
    saved = make_embeddings(rows, precision, space="modèle/tâche/0", blocks=blocks)
    saved.save(tmp_path / "vectors.safetensors")
    loaded = Embeddings.load(str(tmp_path / "vectors.safetensors"), mapped=mapped)
    assert np.array_equal(loaded.codes, saved.codes)
    assert loaded.codes.dtype == saved.codes.dtype
    assert (loaded.precision, loaded.dimensions, loaded.space) == (saved.precision, 64, "modèle/tâche/0")
    assert (loaded.codebook and loaded.codebook.id) == (saved.codebook and saved.codebook.id)
    assert isinstance(loaded.codes, np.memmap) == (mapped and rows > 0)
    assert np.array_equal(loaded.decode(), saved.decode())


def test_truncated_codes_keep_the_whole_codebook(make_embeddings: Make, tmp_path: Path) -> None:
    embeddings = make_embeddings(5, "ternary", blocks=(16, 48))
    embeddings.truncate(16).save(tmp_path / "vectors")
    loaded = Embeddings.load(tmp_path / "vectors")
    assert loaded.dimensions == 16
    assert similarity(loaded, embeddings.truncate(16)).shape == (5, 5)


@pytest.mark.parametrize("max_pixels", [None, 1, 602_112, 2**31])
def test_size_of_images_stays_with_the_vectors(make_embeddings: Make, tmp_path: Path, max_pixels: int | None) -> None:
    embeddings = make_embeddings(4, "int8", max_pixels=max_pixels)
    embeddings[1:].truncate(24).save(tmp_path / "vectors")
    loaded = Embeddings.load(tmp_path / "vectors")
    assert concatenate([loaded[0], loaded[1:]]).max_pixels == max_pixels


def test_slice_and_truncation_can_be_saved(make_embeddings: Make, tmp_path: Path) -> None:
    part = make_embeddings(9, "int8")[::2].truncate(24)
    part.save(tmp_path / "part")
    assert np.array_equal(Embeddings.load(tmp_path / "part").codes, part.codes)


def test_saving_replaces_a_file_at_once_or_not_at_all(make_embeddings: Make, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    make_embeddings(3).save(path)
    make_embeddings(4).save(path)
    assert len(Embeddings.load(path)) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["vectors"]


def test_place_that_cannot_be_written(make_embeddings: Make, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "vectors"
    message = f"{path}: cannot be written: No such file or directory; check the path, its permissions and the disk"
    assert refusal(lambda: make_embeddings(3).save(path)) == message


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    assert (
        refusal(lambda: Embeddings.load(path))
        == f"{path}: cannot be read: No such file or directory; check the path, its permissions and the disk"
    )


@pytest.mark.parametrize("mapped", [False, True])
def test_file_cut_short_at_any_byte(make_embeddings: Make, tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "vectors"
    make_embeddings(2, "binary", 8).save(path)
    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        message = refusal(lambda: Embeddings.load(path, mapped=mapped))
        assert message.startswith(f"{path}: not a valid safetensors file: ")


def test_file_with_something_behind_it(make_embeddings: Make, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    make_embeddings(2, "int8", 8).save(path)
    with path.open("ab") as stream:
        stream.write(b"\0")
    message = "the header describes 16 bytes of data, the file holds 17; copy or download it again"
    assert refusal(lambda: Embeddings.load(path)) == f"{path}: not a valid safetensors file: {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": "embedpack-embeddings-3"},
            f"expected embeddings saved by embedpack ({FILE_FORMAT}), found format 'embedpack-embeddings-3'",
        ),
        (
            {"format": "embedpack-embeddings-1"},
            f"expected embeddings saved by embedpack ({FILE_FORMAT}), found format 'embedpack-embeddings-1'; "
            "an older embedpack wrote it, embed again",
        ),
        ({"format": None}, f"expected embeddings saved by embedpack ({FILE_FORMAT}), found format None"),
        ({"dimensions": "eight"}, "'eight' is not a number of dimensions"),
        ({"normalized": "no"}, "normalized is 'no', similarity 'cosine'; expected true or false, cosine or dot"),
        (
            {"normalized": "false", "similarity": "l2"},
            "normalized is 'false', similarity 'l2'; expected true or false, cosine or dot",
        ),
        ({"similarity": "dot"}, "vectors of length 1 are compared by cosine; pass similarity='cosine'"),
        (
            {"normalized": "false", "similarity": "dot"},
            "int8_scale goes with similarity='dot'; pass both or neither",
        ),
        ({"int8_scale": "0.5"}, "int8_scale goes with similarity='dot'; pass both or neither"),
        *(
            (
                {"normalized": "false", "similarity": "dot", "int8_scale": text},
                f"{text!r} is no positive number for int8_scale",
            )
            for text in ("", "0", "-1", "nan", "inf", "1e999", "1" * 5000, "0x1p-3", "1_0")
        ),
        ({"dimensions": "-8"}, "'-8' is not a number of dimensions"),
        ({"dimensions": "0"}, "'0' is not a number of dimensions"),
        ({"dimensions": "65537"}, "'65537' is not a number of dimensions"),
        ({"dimensions": "٨"}, "'٨' is not a number of dimensions"),
        ({"dimensions": None}, "'' is not a number of dimensions"),
        (
            {"precision": "int7"},
            "unknown precision 'int7'; known: float32, float16, int8, 4bit, 2bit, ternary, binary; "
            "did you mean 'int8'?",
        ),
        ({"precision": None}, "the metadata has no 'precision'"),
        (
            {"precision": "binary"},
            "binary codes of 8 dimensions are an array [n, 1] of type uint8, not [2, 8] of type int8",
        ),
        (
            {"dimensions": "16"},
            "int8 codes of 16 dimensions are an array [n, 16] of type int8, not [2, 8] of type int8",
        ),
        ({"space": None}, "the metadata has no 'space'"),
        ({"max_pixels": "many"}, "'many' is not a number of pixels"),
        ({"max_pixels": "0"}, "'0' is not a number of pixels"),
        ({"max_pixels": "-5"}, "'-5' is not a number of pixels"),
        ({"max_pixels": "2147483649"}, "'2147483649' is not a number of pixels"),
        ({"max_pixels": ""}, "'' is not a number of pixels"),
    ],
    ids=lambda value: "".join(f"{key}={found}" for key, found in value.items()) if isinstance(value, dict) else "",
)
def test_file_of_another_kind(tmp_path: Path, change: dict[str, str | None], message: str) -> None:
    path = tmp_path / "vectors"
    metadata = {key: value for key, value in {**METADATA, **change}.items() if value is not None}
    write_safetensors(path, {"codes": CODES}, metadata)
    assert refusal(lambda: Embeddings.load(path)) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook.center": np.zeros(9, np.float32)}, "the codebook has 9 dimensions, not 16"),
        (
            {"codebook.center": np.full(16, np.nan, np.float32)},
            "invalid codebook: center holds values that are not finite or beyond 1e+06; "
            "export the pack, or embed, again",
        ),
        (
            {"codebook.scale": np.zeros(16, np.float32)},
            "expected the tensors of a codebook (codebook.center, codebook.levels.4bit, codebook.levels.2bit, "
            "codebook.levels.ternary, codebook.levels.binary), found: codebook.center, codebook.levels.2bit, "
            "codebook.levels.4bit, codebook.levels.binary, codebook.levels.ternary, codebook.scale",
        ),
    ],
)
def test_file_with_a_codebook_that_is_none(
    make_embeddings: Make, tmp_path: Path, change: dict[str, npt.NDArray[Any]], message: str
) -> None:
    path = tmp_path / "vectors"
    embeddings = make_embeddings(2, "binary", 16)
    assert embeddings.codebook is not None
    tensors = {"codes": embeddings.codes, **embeddings.codebook.tensors("codebook."), **change}
    write_safetensors(path, tensors, {**METADATA, "precision": "binary", "dimensions": "16"})
    assert refusal(lambda: Embeddings.load(path)) == f"{path}: {message}"


def test_file_without_the_codebook_of_its_codes(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    write_safetensors(path, {"codes": CODES.astype(np.uint8)[:, :2]}, {**METADATA, "precision": "2bit"})
    message = "2bit codes need the codebook that made them; pass codebook="
    assert refusal(lambda: Embeddings.load(path)) == f"{path}: {message}"


def test_absurd_number_of_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    write_safetensors(path, {"codes": CODES}, {**METADATA, "dimensions": "8" * 5000})
    assert refusal(lambda: Embeddings.load(path)).endswith("8' is not a number of dimensions")


@pytest.mark.parametrize("tensors", [{}, {"vectors": CODES}, {"codes": CODES, "more": CODES}])
def test_file_with_other_tensors(tmp_path: Path, tensors: dict[str, npt.NDArray[Any]]) -> None:
    path = tmp_path / "vectors"
    write_safetensors(path, tensors, METADATA)
    found = ", ".join(tensors) or "none"
    message = f"expected embeddings saved by embedpack ({FILE_FORMAT}), found the tensors: {found}"
    assert refusal(lambda: Embeddings.load(path)) == f"{path}: {message}"


# In the coordinates of codes.


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("dimensions", [64, 24])
def test_signs_in_code_space_are_the_binary_codes(make_embeddings: Make, precision: str, dimensions: int) -> None:
    queries = make_embeddings(9, precision).truncate(dimensions)
    documents = make_embeddings(5, "binary", seed=1, blocks=(24, 40)).truncate(dimensions)
    bits = np.packbits(queries.in_code_space(documents) > 0, axis=1)
    assert np.array_equal(bits, in_precision_of(documents, queries).codes)


def test_code_space_without_center_and_rotation_is_that_of_the_vectors(make_embeddings: Make) -> None:
    queries = make_embeddings(9)
    plain = Codebook.gaussian(np.zeros(64, np.float32), 0.1)
    documents = replace(make_embeddings(5, "binary", seed=1), codebook=plain)
    assert np.array_equal(queries.in_code_space(documents), queries.decode())


def test_code_space_of_documents_without_a_codebook_is_refused(make_embeddings: Make) -> None:
    message = "int8 documents have no codebook; pass documents in 4bit, 2bit, ternary, binary"
    assert refusal(lambda: make_embeddings(2).in_code_space(make_embeddings(2, "int8"))) == message


def test_code_space_of_vectors_that_cannot_be_compared_is_refused(make_embeddings: Make) -> None:
    documents = make_embeddings(2, "binary")
    other = make_embeddings(2, space="other/task/0")
    assert "different models or tasks" in refusal(lambda: other.in_code_space(documents))
    zero = replace(make_embeddings(2), codes=np.zeros((2, 64), np.float32))
    assert "vector 0 is zero or not finite" in refusal(lambda: zero.in_code_space(documents))
