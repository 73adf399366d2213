"""Square images: the bytes of Pillow and the places of torchvision, patches in row-major order, long thin images."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedpack import InputError
from embedpack.inputs.resize_filters import FilterName
from embedpack.inputs.square_image import square_patches, square_pixels
from embedpack.pack.input_recipes import SquareImage

Resize = Literal["shortest", "exact"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def spec(size: int, resize: Resize = "shortest", filter: FilterName = "bicubic") -> SquareImage:
    return SquareImage(size=size, patch_size=14, resize=resize, filter=filter, mean=MEAN, std=STD)


def noise(height: int, width: int, *, extremes: bool = False) -> npt.NDArray[np.uint8]:
    values = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    return np.where(values < 128, 0, 255).astype(np.uint8) if extremes else values


def by_pillow(image: npt.NDArray[np.uint8], spec: SquareImage) -> npt.NDArray[np.uint8]:
    """Resize, then cut, as torchvision's Resize and CenterCrop; rows first, in any version of Pillow."""
    height, width = image.shape[:2]
    rows = columns = spec.size
    if spec.resize == "shortest":
        rows, columns = (int(spec.size * side / min(height, width)) for side in (height, width))
    filter = Image.Resampling[spec.filter.upper()]
    resized = Image.fromarray(image).resize((columns, height), filter).resize((columns, rows), filter)
    top, left = round((rows - spec.size) / 2.0), round((columns - spec.size) / 2.0)
    return np.asarray(resized.crop((left, top, left + spec.size, top + spec.size)))


sides = st.integers(1, 120)


@settings(deadline=None, derandomize=True, max_examples=120)
@given(sides, sides, st.sampled_from([14, 28, 42]), st.sampled_from(["shortest", "exact"]),
       st.sampled_from(["bicubic", "bilinear"]), st.booleans())  # fmt: skip
def test_same_bytes_as_pillow(
    height: int, width: int, size: int, resize: Resize, filter: FilterName, extremes: bool
) -> None:
    image, wanted = noise(height, width, extremes=extremes), spec(size, resize, filter)
    np.testing.assert_array_equal(square_pixels(image, wanted), by_pillow(image, wanted))


def test_patches_are_normalized_and_in_row_major_order() -> None:
    """Pixels behind the last whole patch are left out, as a convolution does."""
    image = noise(45, 45)
    found = square_patches(image, spec(45))
    assert found.grid == (3, 3)
    expected = (image / 255 - np.array(MEAN)) / np.array(STD)
    for number, row in enumerate(found.rows):
        top, left = (14 * place for place in divmod(number, 3))
        patch = expected[top : top + 14, left : left + 14].transpose(2, 0, 1)
        np.testing.assert_allclose(row, patch.ravel(), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 4_000_000), (4_000_000, 1)])
def test_only_the_center_of_a_long_image_is_read(shape: tuple[int, int]) -> None:
    """Resized as a whole, it would have 10^12 pixels."""
    image = np.zeros((*shape, 3), np.uint8)
    middle = max(shape) // 2
    image.reshape(-1, 3)[middle - 9 : middle + 9] = (10, 20, 30)
    assert (square_pixels(image, spec(512)) == (10, 20, 30)).all()


def test_a_long_image_is_refused_if_both_sides_are_resized() -> None:
    with pytest.raises(InputError, match="201 x 1 pixels: one side is more than 200 times the other; cut the image"):
        square_pixels(np.zeros((1, 201, 3), np.uint8), spec(14, "exact"))
