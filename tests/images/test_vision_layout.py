"""Places of patches and tokens of an image: values computed by hand, and those of transformers."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from embedpack.inputs.patches import ImagePatches
from embedpack.inputs.vision_layout import token_grid, token_positions, vision_feeds
from embedpack.pack.input_recipes import QwenImage

SPEC = QwenImage(
    hidden=8,
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    window_size=4,
    min_pixels=3136,
    max_pixels=602112,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    tokens_before=(1, 2, 3, 4),
    token=9,
    tokens_after=(5, 6, 7, 8, 1, 2, 3),
    pooled_before=1,
    pooled_after=1,
)
# Rows and columns of tokens: whole windows, cut ones, less than one, long strips.
GRIDS = [(4, 4), (8, 8), (2, 6), (9, 11), (1, 1), (3, 7), (1, 50), (50, 2), (5, 4), (4, 5)]


def numbered(rows: int, columns: int, spec: QwenImage = SPEC) -> ImagePatches:
    """Patches of a grid of tokens, each holding its own number."""
    count = rows * columns * spec.merge_size**2
    numbers = np.arange(count, dtype=np.float32)[:, None]
    return ImagePatches(numbers, (rows * spec.merge_size, columns * spec.merge_size))


def order_of(feeds: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """Numbers of the patches in window order."""
    return feeds["patches"][:, 0].astype(np.int64)


# --- by hand


def test_windows_of_a_small_image() -> None:
    """8 x 12 patches are 4 x 6 tokens: one whole window and one of two columns."""
    feeds = vision_feeds(numbered(4, 6), SPEC)
    tokens = [*range(4), *range(6, 10), *range(12, 16), *range(18, 22), 4, 5, 10, 11, 16, 17, 22, 23]
    np.testing.assert_array_equal(
        order_of(feeds).reshape(-1, 4), [[4 * t, 4 * t + 1, 4 * t + 2, 4 * t + 3] for t in tokens]
    )
    np.testing.assert_array_equal(feeds["window_mask"].sum(1), [64, 32])
    # The second window has two columns of tokens; slots of the other two are empty.
    np.testing.assert_array_equal(feeds["window_mask"][1].reshape(4, 4, 4)[:, :, 0], [[1, 1, 0, 0]] * 4)
    np.testing.assert_array_equal(feeds["window_rows"][0], np.arange(64))
    np.testing.assert_array_equal(feeds["window_rows"][1][feeds["window_mask"][1] == 1], np.arange(64, 96))
    assert not feeds["window_rows"][1][feeds["window_mask"][1] == 0].any()
    np.testing.assert_array_equal(feeds["token_rows"], np.argsort(tokens))


def test_positions_of_patches_go_token_by_token() -> None:
    feeds = vision_feeds(numbered(1, 2), SPEC)
    np.testing.assert_array_equal(feeds["patch_positions"][:, 0], [[0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 2, 3, 2, 3]])


def test_positions_of_a_small_image_among_text() -> None:
    """4 x 4 patches are 2 x 2 tokens; four tokens in front, seven behind."""
    found = token_positions(4, (2, 2), 7)
    np.testing.assert_array_equal(
        found,
        [
            [0, 1, 2, 3, 4, 4, 4, 4, 6, 7, 8, 9, 10, 11, 12],
            [0, 1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10, 11, 12],
            [0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        ],
    )


@pytest.mark.parametrize(("grid", "next_position"), [((1, 9), 13), ((9, 1), 13), ((1, 1), 5)])
def test_the_text_behind_goes_on_after_the_longer_side(grid: tuple[int, int], next_position: int) -> None:
    found = token_positions(4, grid, 2)
    np.testing.assert_array_equal(found[:, -2:], [[next_position, next_position + 1]] * 3)


def test_types_are_those_of_the_graph() -> None:
    feeds = vision_feeds(numbered(3, 7), SPEC)
    assert {name: (values.dtype.name, values.shape) for name, values in feeds.items()} == {
        "patches": ("float32", (84, 1)),
        "patch_positions": ("int64", (2, 1, 84)),
        "window_rows": ("int64", (2, 64)),
        "window_mask": ("int32", (2, 64)),
        "window_slots": ("int64", (84,)),
        "token_rows": ("int64", (21,)),
    }
    assert token_positions(4, (3, 7), 2).dtype == np.int64
    assert token_grid(numbered(3, 7), SPEC) == (3, 7)


# --- transformers


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_windows_are_those_of_transformers(rows: int, columns: int) -> None:
    grid = torch.tensor([[1, 2 * rows, 2 * columns]])
    index, bounds = get_vision_window_index(grid, SPEC.merge_size, 112, SPEC.patch_size)
    feeds = vision_feeds(numbered(rows, columns), SPEC)
    np.testing.assert_array_equal(order_of(feeds)[::4] // 4, index.numpy())
    np.testing.assert_array_equal(np.cumsum([0, *feeds["window_mask"].sum(1)]), bounds.numpy())
    np.testing.assert_array_equal(feeds["token_rows"], torch.argsort(index).numpy())


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_positions_of_patches_are_those_of_transformers(rows: int, columns: int) -> None:
    expected = get_vision_position_ids(torch.tensor([[1, 2 * rows, 2 * columns]]), SPEC.merge_size).numpy()
    feeds = vision_feeds(numbered(rows, columns), SPEC)
    np.testing.assert_array_equal(feeds["patch_positions"][:, 0].T, expected[order_of(feeds)])


@pytest.fixture(scope="module")
def reference() -> Any:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 8, "out_hidden_size": 16}
    config = Qwen2_5_VLConfig(text_config={**text, "intermediate_size": 8, "vocab_size": 9}, vision_config=vision)
    with torch.device("meta"):
        return Qwen2_5_VLModel(config)


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
@pytest.mark.parametrize(("before", "after"), [(4, 7), (1, 1), (5, 12)])
def test_positions_of_tokens_are_those_of_transformers(
    reference: Any, rows: int, columns: int, before: int, after: int
) -> None:
    kinds = torch.tensor([[*[0] * before, *[1] * (rows * columns), *[0] * after]])
    grid = torch.tensor([[1, 2 * rows, 2 * columns]])
    expected, _ = reference.get_rope_index(
        kinds, kinds.int(), image_grid_thw=grid, attention_mask=torch.ones_like(kinds)
    )
    np.testing.assert_array_equal(token_positions(before, (rows, columns), after), expected[:, 0].numpy())


# --- properties

sides = st.integers(1, 13)


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.integers(1, 3), st.integers(1, 5))
def test_every_patch_has_one_slot_and_comes_back(rows: int, columns: int, merge: int, window: int) -> None:
    spec = msgspec.structs.replace(SPEC, merge_size=merge, window_size=window)
    feeds = vision_feeds(numbered(rows, columns, spec), spec)
    order, group = order_of(feeds), merge**2
    count = rows * columns * group
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    mask, slots = feeds["window_mask"], feeds["window_slots"]
    assert mask.shape == (-(-rows // window) * -(-columns // window), window**2 * group)
    # The slots with a patch are exactly those of the mask, in rising order, and lead there and back.
    np.testing.assert_array_equal(np.flatnonzero(mask), slots)
    np.testing.assert_array_equal(feeds["window_rows"].reshape(-1)[slots], np.arange(count))
    assert mask.any(axis=1).all()
    # Patches of a token stay together, and the tokens come back in the order of the image.
    np.testing.assert_array_equal(
        order.reshape(-1, group) - order[::group, None], [np.arange(group)] * (count // group)
    )
    np.testing.assert_array_equal((order[::group] // group)[feeds["token_rows"]], np.arange(rows * columns))


@settings(max_examples=100, deadline=None)
@given(sides, sides, st.integers(1, 3), st.integers(1, 5))
def test_a_window_is_a_square_of_the_image(rows: int, columns: int, merge: int, window: int) -> None:
    spec = msgspec.structs.replace(SPEC, merge_size=merge, window_size=window)
    feeds = vision_feeds(numbered(rows, columns, spec), spec)
    positions, side = feeds["patch_positions"][:, 0], window * merge
    assert len(set(map(tuple, positions.T))) == positions.shape[1]
    for window_rows, mask in zip(feeds["window_rows"], feeds["window_mask"], strict=True):
        squares = positions[:, window_rows[mask == 1]] // side
        assert (squares == squares[:, :1]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), sides, sides, st.integers(0, 9))
def test_positions_rise_without_gaps_in_text(before: int, rows: int, columns: int, after: int) -> None:
    found = token_positions(before, (rows, columns), after)
    assert found.shape == (3, before + rows * columns + after)
    image = found[:, before : before + rows * columns]
    assert (image[0] == before).all()
    assert len(set(map(tuple, image.T))) == rows * columns
    assert image.max() == before + max(rows, columns) - 1
    text = np.concatenate([found[:, :before], found[:, before + rows * columns :]], axis=1)
    assert (text == text[0]).all()
    assert (np.diff(text[0][:before]) == 1).all()
    assert (np.diff(text[0][before:]) == 1).all()
