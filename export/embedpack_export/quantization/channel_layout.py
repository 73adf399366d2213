"""The layout of an activation's channels that a quantized linear layer reads: divisors, order, blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack_export.arrays import Float32


@dataclass(frozen=True)
class ChannelLayout:
    """Divisors, order and blocks of the k channels of an activation.

    Attributes:
        divisors: of the channels, float32 [k].
        blocks: indices of the channels in their new order; each block is quantized with its own scale.
    """

    divisors: Float32
    blocks: tuple[npt.NDArray[np.intp], ...]

    @property
    def order(self) -> npt.NDArray[np.intp]:
        """Indices of all channels in their new order, [k]."""
        return np.concatenate(self.blocks)
