"""Codebooks: levels, digits and rotations compared with the definition, and every invalid file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import InputError, PackError
from embedpack.pack.codebooks import Codebooks, read_codebooks, write_codebooks
from embedpack.storage.safetensors import write_safetensors
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import GAUSSIAN_LEVELS, LEVEL_COUNTS, LOW_BIT, Codebook, LowBit
from embedpack.vectors.codes import unit
from tests.helpers.codebooks import BLOCKS, DIMENSIONS, codebook_of, whole_rotation

LEVELS = Codebook.gaussian(np.zeros(8, np.float32), 1.0).levels


def vectors_of(rows: int, seed: int = 1, dimensions: int = DIMENSIONS) -> Float32:
    return unit(np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32))


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


# Levels.


@pytest.mark.parametrize("precision", LOW_BIT)
def test_levels_are_those_of_lloyd_and_max(precision: LowBit) -> None:
    """At the optimum every level is the mean of the Gaussian between its thresholds."""
    levels = LEVELS[precision].astype(np.float64)
    thresholds = [-math.inf, *((lower + upper) / 2 for lower, upper in pairwise(levels)), math.inf]
    for level, (lower, upper) in zip(levels, pairwise(thresholds), strict=True):
        mass = (math.erf(upper / math.sqrt(2)) - math.erf(lower / math.sqrt(2))) / 2
        mean = (math.exp(-(lower**2) / 2) - math.exp(-(upper**2) / 2)) / math.sqrt(2 * math.pi) / mass
        assert level == pytest.approx(mean, abs=1e-6)


def test_levels_are_as_many_as_digits_and_scaled_by_the_spread() -> None:
    assert {precision: len(levels) for precision, levels in LEVELS.items()} == LEVEL_COUNTS
    scaled = Codebook.gaussian(np.zeros(8, np.float32), 0.25).levels
    for precision in LOW_BIT:
        np.testing.assert_array_equal(scaled[precision], LEVELS[precision] / 4)
        np.testing.assert_array_equal(LEVELS[precision], -LEVELS[precision][::-1])
        assert LEVELS[precision][-len(GAUSSIAN_LEVELS[precision]) :] == pytest.approx(GAUSSIAN_LEVELS[precision])


# Digits and values.


@given(seed=st.integers(0, 99), precision=st.sampled_from(LOW_BIT), dimensions=st.sampled_from([8, 16, 32]))
def test_digits_and_values_are_as_defined(seed: int, precision: LowBit, dimensions: int) -> None:
    codebook, vectors = codebook_of(seed), vectors_of(5, seed)[:, :dimensions]
    rotated = vectors.astype(np.float64) @ whole_rotation(codebook)[:dimensions, :dimensions].T
    levels = codebook.levels[precision].astype(np.float64)
    off = rotated - codebook.center[:dimensions]
    nearest = np.abs(off[:, :, None] - levels).argmin(axis=2)
    digits = codebook.digits(vectors, precision)
    assert digits.dtype == np.uint8
    np.testing.assert_array_equal(digits, nearest)
    np.testing.assert_allclose(codebook.rotate(vectors), rotated, atol=1e-7)
    np.testing.assert_allclose(codebook.rotate_back(codebook.rotate(vectors)), vectors, atol=1e-6)
    values = codebook.values(digits, precision)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, codebook.center[:dimensions] + levels[nearest], atol=1e-7)


@given(seed=st.integers(0, 99), precision=st.sampled_from(LOW_BIT), dimensions=st.sampled_from([8, 16, 32]))
def test_digits_are_nested_and_do_not_depend_on_other_rows(seed: int, precision: LowBit, dimensions: int) -> None:
    codebook, vectors = codebook_of(seed), vectors_of(6, seed)
    digits = codebook.digits(vectors, precision)
    order = np.random.default_rng(seed).permutation(6)
    np.testing.assert_array_equal(codebook.digits(vectors[:, :dimensions], precision), digits[:, :dimensions])
    np.testing.assert_array_equal(codebook.digits(vectors[order], precision), digits[order])
    np.testing.assert_array_equal(np.concatenate([codebook.digits(row[None], precision) for row in vectors]), digits)


def test_on_a_threshold_the_lower_digit_counts() -> None:
    codebook = codebook_of(blocks=(), dimensions=8)
    codebook = replace(codebook, center=np.zeros(8, np.float32))
    zeros = np.zeros((1, 8), np.float32)
    assert [codebook.digits(zeros, precision)[0, 0] for precision in LOW_BIT] == [7, 1, 1, 0]


def test_without_a_rotation_vectors_stay_as_they_are_and_any_truncation_will_do() -> None:
    codebook, vectors = codebook_of(blocks=()), vectors_of(3)
    assert codebook.rotate(vectors) is vectors
    assert codebook.digits(vectors[:, :7], "2bit").shape == (3, 7)


def test_other_dimensions() -> None:
    many, uneven = np.zeros((1, 40), np.float32), np.zeros((1, 12), np.float32)
    assert refusal(lambda: codebook_of().rotate(many)) == "the codebook has 32 dimensions, not 40"
    assert refusal(lambda: codebook_of(blocks=()).digits(many, "4bit")) == ("the codebook has 32 dimensions, not 40")
    assert refusal(lambda: codebook_of().check_dimensions(0)) == "the codebook has 32 dimensions, not 0"
    assert refusal(lambda: codebook_of().rotate_back(uneven)) == (
        "the codebook's rotation can be truncated to 8, 16, 32 dimensions, not to 12"
    )


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.9])
def test_length_is_about_that_of_truncated_vectors(strength: float) -> None:
    """Of vectors that spread around a center, however long that is."""
    random = np.random.default_rng(0)
    axis = unit(random.standard_normal((1, 256)).astype(np.float32)) * np.float32(strength)
    noise = unit(random.standard_normal((500, 256)).astype(np.float32)) * np.float32(np.sqrt(1 - strength**2))
    vectors = unit(axis + noise)
    center = vectors.mean(axis=0)
    codebook = Codebook.gaussian(center, float((vectors - center).std()))
    assert codebook.length(256) == 1
    for dimensions in (64, 128, 255):
        mean = np.linalg.norm(vectors[:, :dimensions], axis=1).mean()
        assert codebook.length(dimensions) == pytest.approx(mean, rel=0.02)


# Tensors, names and the id.


@pytest.mark.parametrize("blocks", [(), BLOCKS])
@pytest.mark.parametrize("prefix", ["", "codebook."])
def test_tensors_make_the_same_codebook(blocks: tuple[int, ...], prefix: str) -> None:
    codebook = codebook_of(blocks=blocks)
    tensors = codebook.tensors(prefix)
    rotation = [f"rotation.{number}" for number in range(len(blocks))]
    names = ["center", *rotation, "levels.4bit", "levels.2bit", "levels.ternary", "levels.binary"]
    assert list(tensors) == [prefix + name for name in names]
    assert Codebook.from_tensors(tensors, prefix).id == codebook.id
    if prefix:
        assert Codebook.from_tensors({**tensors, "codes": np.zeros(3)}, prefix).id == codebook.id


def test_id_says_every_difference() -> None:
    codebook = codebook_of()
    assert len(codebook.id) == 16
    assert codebook.id == codebook_of.__wrapped__().id
    others = [
        replace(codebook, center=np.nextafter(codebook.center, np.float32(1))),
        replace(codebook, rotation=()),
        replace(codebook, rotation=(-codebook.rotation[0], *codebook.rotation[1:])),
        replace(codebook, levels={**codebook.levels, "2bit": codebook.levels["2bit"] * 2}),
    ]
    assert len({codebook.id, *(other.id for other in others)}) == 1 + len(others)


def test_id_does_not_depend_on_how_the_values_lie_in_memory() -> None:
    codebook = codebook_of()
    transposed = tuple(np.asfortranarray(block) for block in codebook.rotation)
    assert replace(codebook, rotation=transposed).id == codebook.id


# What is no codebook.


def changed(**changes: Any) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a codebook, some put in or replaced ("levels_4bit" for "levels.4bit"), some (None) left out."""
    tensors: dict[str, Any] = dict(codebook_of().tensors())
    tensors.update({name.replace("_", "."): value for name, value in changes.items()})
    return {name: value for name, value in tensors.items() if value is not None}


NAMES = "center, rotation.0, rotation.1, rotation.2, levels.4bit, levels.2bit, levels.ternary, levels.binary"
FOUND = "center, levels.2bit, levels.4bit, levels.binary, levels.ternary, rotation.0, rotation.1, rotation.2"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        pytest.param(
            changed(center=None),
            f"expected the tensors of a codebook ({NAMES}), found: {FOUND.removeprefix('center, ')}",
            id="no_center",
        ),
        pytest.param(
            changed(scale=np.zeros(3)),
            f"expected the tensors of a codebook ({NAMES}), found: {FOUND}, scale",
            id="another",
        ),
        pytest.param(
            changed(rotation_0=None, rotation_7=np.zeros(3)),
            f"expected the tensors of a codebook ({NAMES}), "
            f"found: {FOUND.replace('rotation.0, rotation.1, rotation.2', 'rotation.1, rotation.2, rotation.7')}",
            id="a_hole_in_the_rotation",
        ),
        pytest.param(
            {},
            "expected the tensors of a codebook (center, levels.4bit, levels.2bit, levels.ternary, levels.binary), "
            "found: none",
            id="nothing",
        ),
    ],
)
def test_tensors_that_are_no_codebook(tensors: Mapping[str, npt.NDArray[Any]], message: str) -> None:
    assert refusal(lambda: Codebook.from_tensors(tensors)) == message


NAN = np.full(32, np.nan, np.float32)
OFF = np.eye(8, dtype=np.float32) * np.float32(1.01)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        pytest.param(
            changed(center=np.zeros((32, 1), np.float32)),
            "center is an array [32, 1] of type float32, expected [32] of type float32",
            id="center_of_two_axes",
        ),
        pytest.param(
            changed(center=np.zeros(())),
            "center is an array [] of type float64, expected [1] of type float32",
            id="center_without_axes",
        ),
        pytest.param(
            changed(center=np.zeros(0, np.float32)),
            "center is an array [0] of type float32, expected [1] of type float32",
            id="center_of_nothing",
        ),
        pytest.param(
            changed(center=np.zeros(32, np.float16)),
            "center is an array [32] of type float16, expected [32] of type float32",
            id="center_of_float16",
        ),
        pytest.param(
            changed(rotation_1=np.zeros((8, 4), np.float32)),
            "rotation.1 is an array [8, 4] of type float32, expected [8, 8] of type float32",
            id="block_that_is_not_square",
        ),
        pytest.param(
            changed(levels_2bit=np.zeros(3, np.float32)),
            "levels.2bit is an array [3] of type float32, expected [4] of type float32",
            id="too_few_levels",
        ),
        pytest.param(changed(center=NAN), "center holds values that are not finite or beyond 1e+06", id="nan"),
        pytest.param(
            changed(center=np.full(32, 2e6, np.float32)),
            "center holds values that are not finite or beyond 1e+06",
            id="huge",
        ),
        pytest.param(
            changed(levels_binary=np.array([0, np.inf], np.float32)),
            "levels.binary holds values that are not finite or beyond 1e+06",
            id="infinite_level",
        ),
        pytest.param(
            changed(levels_ternary=np.array([0, 0, 1], np.float32)), "levels.ternary do not ascend", id="equal_levels"
        ),
        pytest.param(
            changed(rotation_2=None),
            "the blocks of the rotation add up to 16 dimensions, the center has 32",
            id="rotation_that_is_too_small",
        ),
        pytest.param(
            changed(rotation_1=OFF),
            "rotation.1 is not orthogonal: its product with its transpose is off by 0.02",
            id="not_orthogonal",
        ),
    ],
)
def test_tensors_with_wrong_values(tensors: Mapping[str, npt.NDArray[Any]], message: str) -> None:
    expected = f"invalid codebook: {message}; export the pack, or embed, again"
    assert refusal(lambda: Codebook.from_tensors(tensors)) == expected


def test_levels_of_other_precisions() -> None:
    levels: Any = {"4bit": LEVELS["4bit"], "3bit": LEVELS["4bit"]}
    assert refusal(lambda: Codebook(np.zeros(8, np.float32), (), levels)) == (
        "invalid codebook: it has levels for 3bit, 4bit, not for 4bit, 2bit, ternary, binary; "
        "export the pack, or embed, again"
    )


# The file of a pack.


@pytest.mark.parametrize("token", [None, codebook_of(3, (), 16)])
def test_file_gives_the_codebooks_back_and_has_the_same_bytes_again(tmp_path: Path, token: Codebook | None) -> None:
    path = tmp_path / "task.safetensors"
    write_codebooks(path, Codebooks(codebook_of(), token))
    found = read_codebooks(path, DIMENSIONS, None if token is None else 16)
    assert found.single is not None
    assert found.single.id == codebook_of().id
    assert (found.multi and found.multi.id) == (token and token.id)
    write_codebooks(tmp_path / "again", found)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("tensors", "dimensions", "message"),
    [
        pytest.param(
            changed(),
            (64, None),
            "codebooks of 32 dimensions for vectors and None for tokens; the pack has 64 and None",
            id="other_dimensions",
        ),
        pytest.param(
            changed(),
            (32, 16),
            "codebooks of 32 dimensions for vectors and None for tokens; the pack has 32 and 16",
            id="no_codebook_for_tokens",
        ),
        pytest.param(
            {**changed(), "token.center": np.zeros(16, np.float32)},
            (32, 16),
            "expected the tensors of a codebook (token.center, token.levels.4bit, token.levels.2bit, "
            "token.levels.ternary, token.levels.binary), found: token.center",
            id="half_a_codebook_for_tokens",
        ),
        pytest.param(
            changed(rotation_1=OFF),
            (32, None),
            "invalid codebook: rotation.1 is not orthogonal: its product with its transpose is off by 0.02; "
            "export the pack, or embed, again",
            id="wrong_values",
        ),
    ],
)
def test_file_that_is_not_the_packs(
    tmp_path: Path, tensors: Mapping[str, npt.NDArray[Any]], dimensions: tuple[int, int | None], message: str
) -> None:
    path = tmp_path / "task.safetensors"
    write_safetensors(path, tensors, {})
    with pytest.raises(PackError) as caught:
        read_codebooks(path, *dimensions)
    assert str(caught.value) == f"{path}: {message}"


def test_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "task.safetensors"
    write_codebooks(path, Codebooks(codebook_of(), None))
    content = path.read_bytes()
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(PackError, match="not a valid safetensors file"):
            read_codebooks(path, DIMENSIONS, None)
