"""Calibration images, drawn at random so that no picture has to be shipped.

They vary in the ways that change activations: smooth color, noise, sharp edges, lines of text, small and wide formats.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def calibration_images(seed: int) -> list[Image]:
    """Draw the images, each uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    drawn: list[tuple[Callable[[np.random.Generator, int, int], Image], int, int]] = [
        (_gradient, 224, 224),
        (_page, 392, 280),
        (_noise, 112, 168),
        (_blocks, 252, 308),
        (_page, 196, 448),
        (_waves, 280, 280),
    ]
    return [draw(rng, height, width) for draw, height, width in drawn]


def _gradient(rng: np.random.Generator, height: int, width: int) -> Image:
    corners = rng.uniform(0, 255, (2, 2, 3))
    down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top = corners[0, 0] * (1 - across) + corners[0, 1] * across
    bottom = corners[1, 0] * (1 - across) + corners[1, 1] * across
    return (top * (1 - down) + bottom * down).astype(np.uint8)


def _noise(rng: np.random.Generator, height: int, width: int) -> Image:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _waves(rng: np.random.Generator, height: int, width: int) -> Image:
    down, across = np.mgrid[:height, :width]
    phases = [down * rng.uniform(0.02, 0.4) + across * rng.uniform(0.02, 0.4) for _ in range(3)]
    return (127.5 + 127.5 * np.sin(np.stack(phases, axis=-1))).astype(np.uint8)


def _blocks(rng: np.random.Generator, height: int, width: int) -> Image:
    """Rectangles of plain color, as in charts and screenshots."""
    image = np.full((height, width, 3), 245, np.uint8)
    for _ in range(24):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        image[top : top + rng.integers(8, height // 2), left : left + rng.integers(8, width // 2)] = rng.integers(
            0, 256, 3
        )
    return image


def _page(rng: np.random.Generator, height: int, width: int) -> Image:
    """Lines of dark marks on white, each the size of a letter."""
    image = np.full((height, width, 3), 255, np.uint8)
    for top in range(14, height - 14, 14):
        left = 14
        while left < width - 20 and rng.random() > 0.05:
            letter = rng.random((8, 5)) > 0.5
            image[top : top + 8, left : left + 5][letter] = 20
            left += 6 if rng.random() > 0.18 else 13
    return image
