"""Resizing: pixels compared with torch, sizes with published ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedpack import InputError
from embedpack.inputs.resize import resize_bicubic, smart_resize
from embedpack.inputs.resize_filters import bicubic_filter

repeatable = settings(deadline=None, derandomize=True, max_examples=120)
sides = st.integers(1, 90)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def noise(*shape: int, seed: int = 0, extremes: bool = False) -> npt.NDArray[np.uint8]:
    values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return np.where(values < 128, 0, 255).astype(np.uint8) if extremes else values


def torch_resize(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    # With channels last: torch fails on other images that become a single pixel.
    batch = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].contiguous(memory_format=torch.channels_last)
    resized = torch.nn.functional.interpolate(
        batch, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return resized[0].permute(1, 2, 0).numpy()


@repeatable
@given(sides, sides, sides, sides, st.booleans(), st.integers(0, 9))
def test_same_bytes_as_torch(before: int, width: int, after: int, columns: int, extremes: bool, seed: int) -> None:
    image = noise(before, width, 3, seed=seed, extremes=extremes)
    np.testing.assert_array_equal(resize_bicubic(image, after, columns), torch_resize(image, after, columns))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((240, 320), (252, 308)),
        ((1080, 1920), (560, 1008)),
        ((1, 700), (28, 28)),
        ((700, 1), (1, 700)),
        ((3, 5), (616, 840)),
        ((900, 1200), (1, 1)),
        ((64, 64), (56, 64)),
        ((64, 64), (64, 56)),
    ],
)
@pytest.mark.parametrize("extremes", [False, True])
def test_same_bytes_as_torch_on_usual_and_on_odd_sizes(
    before: tuple[int, int], after: tuple[int, int], extremes: bool
) -> None:
    image = noise(*before, 3, extremes=extremes)
    np.testing.assert_array_equal(resize_bicubic(image, *after), torch_resize(image, *after))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels(channels: int) -> None:
    image = noise(50, 40, channels)
    np.testing.assert_array_equal(resize_bicubic(image, 28, 56), torch_resize(image, 28, 56))


def test_same_size_is_the_same_image() -> None:
    image = noise(28, 56, 3)
    np.testing.assert_array_equal(resize_bicubic(image, 28, 56), image)


def test_twenty_megapixels() -> None:
    image = noise(5472, 3648, 3)
    np.testing.assert_array_equal(resize_bicubic(image, 896, 672), torch_resize(image, 896, 672))


def test_strips_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(97, 61, 3)
    whole = resize_bicubic(image, 45, 130)
    monkeypatch.setattr("embedpack.inputs.resize_filters.STRIP_BYTES", 1)
    np.testing.assert_array_equal(resize_bicubic(image, 45, 130), whole)


def test_known_coefficients() -> None:
    kernel = bicubic_filter(64, 56)
    real = kernel.weights / 2**kernel.precision
    assert kernel.precision == 15
    assert kernel.starts[[0, 10]].tolist() == [0, 10]
    np.testing.assert_allclose(real[10, :4], [-0.064417, 0.564417, 0.564417, -0.064417], atol=2e-5)
    np.testing.assert_allclose(real[0, :3], [0.89146, 0.13875, -0.03021], atol=2e-5)
    assert not real[0, 3:].any()
    assert not real[10, 4:].any()


@pytest.mark.parametrize(
    ("before", "after", "precision"), [(64, 128, 14), (50, 50, 14), (64, 56, 15), (100, 50, 16), (800, 100, 17)]
)
def test_weights_fill_sixteen_bits(before: int, after: int, precision: int) -> None:
    kernel = bicubic_filter(before, after)
    assert kernel.precision == precision
    assert 2**14 <= kernel.weights.max() < 2**15


def test_precision_has_a_limit() -> None:
    kernel = bicubic_filter(5000, 1)
    assert kernel.precision == 22
    assert kernel.weights.max() < 2**14


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((100, 200), (112, 196)),
        ((4000, 3000), (896, 672)),
        ((20, 20), (56, 56)),
        ((28, 4000), (28, 4004)),
        ((1754, 1240), (896, 644)),
        ((1080, 1920), (560, 1008)),
        ((224, 224), (224, 224)),
        ((240, 320), (252, 308)),
        ((1, 1), (56, 56)),
    ],
)
def test_known_sizes(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert smart_resize(*size, 28, 3136, 602112) == resized


@pytest.mark.parametrize(("side", "resized"), [(70, 56), (98, 112), (126, 112), (154, 168)])
def test_halves_are_rounded_to_the_even_neighbour(side: int, resized: int) -> None:
    assert smart_resize(side, 280, 28, 3136, 602112) == (resized, 280)


@repeatable
@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([14, 28, 32]))
def test_size_is_within_bounds_and_keeps_the_aspect(height: int, width: int, factor: int) -> None:
    assume(max(height, width) <= 200 * min(height, width))
    rows, columns = smart_resize(height, width, factor, 3136, 602112)
    assert rows % factor == columns % factor == 0
    assert 3136 <= rows * columns <= 602112
    # Some one scale puts both sides within a token of where they are.
    least = max((rows - factor) / height, (columns - factor) / width)
    assert least < min((rows + factor) / height, (columns + factor) / width)


@pytest.mark.parametrize("size", [(1, 201), (10, 2001), (201, 1)])
def test_lines_are_refused(size: tuple[int, int]) -> None:
    height, width = size
    with pytest.raises(InputError) as caught:
        smart_resize(height, width, 28, 3136, 602112)
    assert str(caught.value) == (
        f"{width} x {height} pixels: one side is more than 200 times the other; cut the image into parts"
    )


def test_two_hundred_to_one_is_taken() -> None:
    assert smart_resize(100, 20_000, 28, 3136, 602112) == (28, 10948)
