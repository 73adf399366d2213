"""Patches: the steps of the reference written with torch's views, and values that can be followed by hand."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from embedpack import InputError
from embedpack.inputs.patches import image_patches
from embedpack.pack.input_recipes import QwenImage

SPEC = QwenImage(
    hidden=8,
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    window_size=4,
    min_pixels=3136,
    max_pixels=602112,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    tokens_before=(1, 2),
    token=3,
    tokens_after=(4,),
    pooled_before=1,
    pooled_after=1,
)


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def reference(image: npt.NDArray[np.uint8], spec: QwenImage) -> npt.NDArray[np.float32]:
    """Rows of an image that needs no resizing."""
    pixels = torch.from_numpy(image).permute(2, 0, 1).to(torch.float32)
    mean, std = (torch.tensor(values) * 255.0 for values in (spec.mean, spec.std))
    pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    frames = pixels[None].repeat(spec.temporal_patch_size, 1, 1, 1)
    side, merge = spec.patch_size, spec.merge_size
    rows, columns = image.shape[0] // side, image.shape[1] // side
    parts = frames.view(
        1, spec.temporal_patch_size, 3, rows // merge, merge, side, columns // merge, merge, side
    ).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return parts.reshape(rows * columns, -1).numpy()


@pytest.mark.parametrize(
    ("patch", "merge", "frames", "size"),
    [(14, 2, 2, (56, 84)), (14, 2, 2, (112, 28)), (16, 2, 1, (64, 96)), (8, 3, 3, (72, 48)), (14, 1, 2, (56, 70))],
)
def test_rows_are_those_of_the_reference(patch: int, merge: int, frames: int, size: tuple[int, int]) -> None:
    spec = msgspec.structs.replace(SPEC, patch_size=patch, merge_size=merge, temporal_patch_size=frames)
    image = noise(*size)
    patches = image_patches(image, spec)
    assert patches.rows.dtype == np.float32
    assert patches.rows.shape == (size[0] * size[1] // patch**2, 3 * frames * patch**2)
    assert patches.grid == (size[0] // patch, size[1] // patch)
    np.testing.assert_array_equal(patches.rows, reference(image, spec))


def test_rows_are_those_of_transformers() -> None:
    image = noise(252, 308)
    processor = Qwen2VLImageProcessorPil(
        patch_size=14, merge_size=2, temporal_patch_size=2, image_mean=list(SPEC.mean), image_std=list(SPEC.std)
    )
    expected = processor(images=[image], return_tensors="np", input_data_format="channels_last")
    patches = image_patches(image, SPEC)
    assert [[1, *patches.grid]] == expected["image_grid_thw"].tolist()
    np.testing.assert_allclose(patches.rows, expected["pixel_values"], atol=1e-5)


def test_order_of_the_patches() -> None:
    image = np.zeros((56, 84, 3), np.uint8)
    for row in range(4):
        for column in range(6):
            image[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14] = 10 * row + column
    plain = msgspec.structs.replace(SPEC, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    values = np.rint(image_patches(image, plain).rows[:, 0] * 255).astype(int).tolist()
    first_row_of_tokens = [0, 1, 10, 11, 2, 3, 12, 13, 4, 5, 14, 15]
    assert values == first_row_of_tokens + [value + 20 for value in first_row_of_tokens]


def test_image_is_resized() -> None:
    patches = image_patches(noise(240, 320), SPEC)
    assert patches.grid == (18, 22)
    assert patches.rows.shape == (18 * 22, 1176)


def test_one_pixel() -> None:
    patches = image_patches(np.full((1, 1, 3), 255, np.uint8), SPEC)
    assert patches.grid == (4, 4)
    white = (1 - np.array(SPEC.mean)) / np.array(SPEC.std)
    np.testing.assert_allclose(patches.rows.reshape(16, 3, -1), np.broadcast_to(white[:, None], (16, 3, 392)), 1e-6)


def test_max_pixels_of_the_caller_counts() -> None:
    image = noise(300, 300)
    assert image_patches(image, SPEC).grid == (22, 22)
    assert image_patches(image, SPEC, max_pixels=13_000).grid == (8, 8)
    large = np.zeros((1400, 1400, 3), np.uint8)
    assert image_patches(large, SPEC).grid == (54, 54)
    assert image_patches(large, SPEC, max_pixels=2_000_000).grid == (100, 100)


def test_max_pixels_below_the_least() -> None:
    assert image_patches(noise(112, 112), SPEC, max_pixels=3136).grid == (4, 4)
    with pytest.raises(InputError) as caught:
        image_patches(noise(300, 300), SPEC, max_pixels=3135)
    assert str(caught.value) == "max_pixels is 3135; this model takes images of at least 3136 pixels"
