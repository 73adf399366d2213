"""Layout of an activation's channels for the quantized linear layers that read it: divisors, order, blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.vectors.arrays import Float32


@dataclass(frozen=True)
class ChannelLayout:
    """Divisors, order and blocks of the k channels of an activation."""

    divisors: Float32  # divisor of each channel, in the original order, float32 [k]
    # Indices of the channels in their new order; each block is quantized with its own scale.
    blocks: tuple[npt.NDArray[np.intp], ...]

    @property
    def order(self) -> npt.NDArray[np.intp]:
        """Indices of all channels in their new order, [k]."""
        return np.concatenate(self.blocks)

    def cut(self, parts: int) -> ChannelLayout:
        """The layout with blocks that lie within one of equal parts of the channels."""
        width = len(self.divisors) // parts
        ends = {int(end) for end in np.cumsum([len(block) for block in self.blocks])}
        cuts = {width * part for part in range(1, parts)}
        bounds = sorted((ends | cuts) - {len(self.divisors)})
        return ChannelLayout(self.divisors, tuple(np.split(self.order, bounds)))


@dataclass(frozen=True)
class ChannelGroups:
    """Channels with common divisors, e.g. of the query heads that read one value head; they keep their order.

    Channels are numbered [group, member, channel of a member]; the members of a group have the same divisors.
    """

    groups: int
    members: int
    size: int  # channels of a member

    def maximum(self, values: Float32) -> Float32:
        """Replace each of `values` [k] by the largest of its group's members."""
        shape = (self.groups, self.members, self.size)
        return np.broadcast_to(values.reshape(shape).max(axis=1, keepdims=True), shape).reshape(-1)

    def first_members(self, values: Float32) -> Float32:
        """Values [groups * size] of the first member of each group, from `values` [k]."""
        return values.reshape(self.groups, self.members, self.size)[:, 0].reshape(-1)
