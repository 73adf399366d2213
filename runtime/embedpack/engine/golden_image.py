"""The image among golden vectors and golden scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def golden_image() -> npt.NDArray[np.uint8]:
    """Color gradients, RGB uint8 [100, 140, 3]; the sides are not multiples of a window."""
    down, across = np.mgrid[:100, :140]
    return np.stack([down * 255 // 99, across * 255 // 139, (down * across) % 256], axis=-1).astype(np.uint8)
