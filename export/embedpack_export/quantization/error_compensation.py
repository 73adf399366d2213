"""What reaches the linear layers of a quantized graph differs from what reaches them in float32.

The layers in front are quantized already, so their error is known, and a layer can make up for the part of it that goes
with what still arrives. With x the activation in float32, y what arrives, and r what is missing in that to which the
result is added, all around their means, the weights that bring V y nearest to W x + r are the regression

    V = (W cov(x, y) + cov(r, y)) cov(y)^-1 = W + (W cov(x - y, y) + cov(r, y)) cov(y)^-1

and it is V that is rounded, to fit cov(y): GPTAQ (Li et al. 2025, arXiv 2504.02692) has the same aim, column by column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack_export.arrays import Float32
from embedpack_export.quantization.activation_file import Tokens
from embedpack_export.quantization.gptq import Rounding
from embedpack_export.quantization.statistics import channel_blocks, token_weights

Float64 = npt.NDArray[np.float64]

# Part of the mean variance added to each channel. A regression follows what texts have in common by chance, and few
# hundred texts have much of that: with a tenth of it, vectors of other texts than the calibration's are worse.
DAMPING = 0.3


@dataclass(frozen=True)
class Passage:
    """The tokens of a batch at a layer.

    Attributes:
        exact: in float32, [n, k].
        arrived: behind layers that are quantized, float32 [n, k].
        missing: in that to which the layer's results are added: float32 less what arrives there, [n, outputs]; there
            are no outputs where they are added to nothing.
    """

    exact: Tokens
    arrived: Float32
    missing: Float32


@dataclass(frozen=True)
class Drift:
    """Means and covariances of an activation of k channels.

    A token counts by its share of its text, and by 1 / its squared length in float32 (see `SiteStatistics`).

    Attributes:
        exact: mean in float32, [k].
        mean: of what arrives, float32 [k].
        covariance: of what arrives, of each block of channels (`channel_blocks`), float64 [b, b].
        lost: covariance of what is missing (x - y) with what arrives, of each block, float64 [b, b].
        missing: mean of what is missing behind the layer, float32 [outputs].
        behind: covariance of that with what arrives, float32 [outputs, k].
        tokens: how many there were.
    """

    exact: Float32
    mean: Float32
    covariance: tuple[Float64, ...]
    lost: tuple[Float64, ...]
    missing: Float32
    behind: Float32
    tokens: int

    @classmethod
    def of(cls, origin: Float32, batches: Iterable[Passage]) -> Drift:
        """Of all tokens; there must be some.

        Sums are taken around `origin` [k], best the mean: far from zero, float32 products would lose the variance.
        """
        found: _Sums | None = None
        for batch in batches:
            found = found or _Sums.zero(len(origin), batch.missing.shape[1])
            found.add(origin, batch)
        assert found is not None
        return found.drift(origin)

    def owed(self, weights: Float32, rows: slice) -> Float32:
        """W cov(x - y, y) + cov(r, y) of weights [n, k], those rows of the layer's."""
        products = np.empty_like(weights)
        for block, lost in zip(channel_blocks(weights.shape[1]), self.lost, strict=True):
            products[:, block] = weights[:, block] @ lost.astype(np.float32)
        return products + self.behind[rows] if len(self.behind) else products

    def roundings(self) -> list[Rounding]:
        """The rounding of each block of channels.

        Of what is noise, a regression on b channels fits the part b / tokens: large blocks are damped at least by that.
        """
        return [Rounding.for_covariance(block, max(DAMPING, len(block) / self.tokens)) for block in self.covariance]


@dataclass
class _Sums:
    """Weighted sums of tokens: of values y less the origin, of x - y, of what is missing behind, and of products."""

    weight: float
    tokens: int
    arrived: Float64
    lost: Float64
    missing: Float64
    covariance: tuple[Float64, ...]
    lost_covariance: tuple[Float64, ...]
    behind: Float32

    @classmethod
    def zero(cls, channels: int, outputs: int) -> _Sums:
        sizes = [block.stop - block.start for block in channel_blocks(channels)]
        return cls(
            weight=0.0,
            tokens=0,
            arrived=np.zeros(channels),
            lost=np.zeros(channels),
            missing=np.zeros(outputs),
            covariance=tuple(np.zeros((size, size)) for size in sizes),
            lost_covariance=tuple(np.zeros((size, size)) for size in sizes),
            behind=np.zeros((outputs, channels), np.float32),
        )

    def add(self, origin: Float32, batch: Passage) -> None:
        roots = np.sqrt(token_weights(batch.exact.values) * batch.exact.shares)
        arrived, missing = (batch.arrived - origin) * roots, batch.missing * roots
        lost = (batch.exact.values - batch.arrived) * roots
        self.tokens += len(roots)
        self.weight += float(np.square(roots, dtype=np.float64).sum())
        for total, values in ((self.arrived, arrived), (self.lost, lost), (self.missing, missing)):
            total += (values * roots).sum(0, dtype=np.float64)
        for index, block in enumerate(channel_blocks(len(origin))):
            self.covariance[index][...] += arrived[:, block].T @ arrived[:, block]
            self.lost_covariance[index][...] += lost[:, block].T @ arrived[:, block]
        self.behind += missing.T @ arrived

    def drift(self, origin: Float32) -> Drift:
        """No more can be added."""
        weight = self.weight or 1.0
        arrived, lost, missing = self.arrived / weight, self.lost / weight, self.missing / weight
        for index, block in enumerate(channel_blocks(len(origin))):
            _center(self.covariance[index], weight, arrived[block], arrived[block])
            _center(self.lost_covariance[index], weight, lost[block], arrived[block])
        _center(self.behind, weight, missing, arrived)
        mean = (origin + arrived).astype(np.float32)
        return Drift(
            (mean + lost).astype(np.float32),
            mean,
            self.covariance,
            self.lost_covariance,
            missing.astype(np.float32),
            self.behind,
            self.tokens,
        )


def _center(products: Float64 | Float32, weight: float, left: Float64, right: Float64) -> None:
    """Sums of products to a covariance, in place, row by row: for large ones there is no room twice."""
    products /= weight
    for row, value in zip(products, left, strict=True):
        row -= value * right
