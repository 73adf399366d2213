"""Error compensation for quantized layers (after GPTAQ): weights corrected for the errors of earlier layers.

The layers before a layer are quantized first, so the error of its input is known, and its weights can compensate the
part of that error that is correlated with the quantized input. With W the weights, x the exact input, y the quantized
input and r the residual error, all three less their means, the least-squares problem min E |(W x + r) - V y|^2 has the
solution

    V = (W cov(x, y) + cov(r, y)) cov(y)^-1 = W + (W cov(x - y, y) + cov(r, y)) cov(y)^-1

and GPTQ then rounds V for cov(y). GPTAQ (Li et al. 2025, arXiv 2504.02692) also matches the output of the exact layer
(asymmetric calibration), without r, and corrects the weights column by column during the rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Float64
from embedpack_export.quantization.activation_file import TokenActivations
from embedpack_export.quantization.covariances import CovarianceSum, center_products, covariance_blocks
from embedpack_export.quantization.gptq import Rounding
from embedpack_export.quantization.statistics import inverse_squared_lengths

# Part of the mean variance added to each channel. A regression on a few hundred texts also fits correlations that are
# chance: at a tenth of this damping, the vectors of texts outside the calibration get worse.
REGRESSION_DAMPING = 0.3


@dataclass(frozen=True)
class LayerBatch:
    """The tokens of a calibration batch at a linear layer."""

    exact: TokenActivations  # input of the layer in float32, [n, k]
    quantized: Float32  # input of the layer after the quantized layers before it, float32 [n, k]
    # Exact minus quantized residual stream, [n, outputs]; zero columns if the layer has no residual connection.
    residual_error: Float32


@dataclass(frozen=True)
class QuantizedInputStats:
    """Means and covariances of the exact input x, the quantized input y and the residual error r of a layer.

    A token weighs its token weight (`TokenActivations`) over the squared length of x (as in `SiteStatistics`).
    """

    exact_mean: Float32  # mean of x, float32 [k]
    mean: Float32  # mean of y, float32 [k]
    covariance: tuple[Float64, ...]  # cov(y) of each block of channels (`covariance_blocks`), float64 [b, b]
    input_error_cov: tuple[Float64, ...]  # cov(x - y, y) of each block of channels, float64 [b, b]
    residual_error: Float32  # mean of r, float32 [outputs]
    residual_error_cov: Float32  # cov(r, y), float32 [outputs, k]
    tokens: int

    @classmethod
    def of(cls, origin: Float32, batches: Iterable[LayerBatch]) -> QuantizedInputStats:
        """Statistics of all tokens of `batches`, of which there must be at least one.

        Sums are taken around `origin` [k], ideally the mean: far from zero, float32 products would lose the variance.
        """
        sums: _Sums | None = None
        for batch in batches:
            sums = sums or _Sums.zero(len(origin), batch.residual_error.shape[1])
            sums.add(origin, batch)
        assert sums is not None
        return sums.statistics(origin)

    def correction(self, weights: Float32, rows: slice) -> Float32:
        """W cov(x - y, y) + cov(r, y) for `weights` [n, k], which are these rows of the layer's weights."""
        products = np.empty_like(weights)
        for block, covariance in zip(covariance_blocks(weights.shape[1]), self.input_error_cov, strict=True):
            products[:, block] = weights[:, block] @ covariance.astype(np.float32)
        return products + self.residual_error_cov[rows] if len(self.residual_error_cov) else products

    def roundings(self) -> list[Rounding]:
        """GPTQ for each block of channels.

        A regression on b channels fits the part b / tokens of pure noise, so the damping of a large block is at least
        that.
        """
        return [
            Rounding.for_covariance(block, max(REGRESSION_DAMPING, len(block) / self.tokens))
            for block in self.covariance
        ]


@dataclass
class _Sums:
    """Weighted sums of y - origin, of x - y, of r, and of their products with y - origin."""

    weight: float
    tokens: int
    quantized: Float64
    input_error: Float64
    residual_error: Float64
    covariance: CovarianceSum
    input_error_cov: CovarianceSum
    residual_error_cov: Float32

    @classmethod
    def zero(cls, channels: int, outputs: int) -> _Sums:
        return cls(
            weight=0.0,
            tokens=0,
            quantized=np.zeros(channels),
            input_error=np.zeros(channels),
            residual_error=np.zeros(outputs),
            covariance=CovarianceSum(channels),
            input_error_cov=CovarianceSum(channels),
            residual_error_cov=np.zeros((outputs, channels), np.float32),
        )

    def add(self, origin: Float32, batch: LayerBatch) -> None:
        roots = np.sqrt(inverse_squared_lengths(batch.exact.values) * batch.exact.token_weights)
        quantized, residual_error = (batch.quantized - origin) * roots, batch.residual_error * roots
        input_error = (batch.exact.values - batch.quantized) * roots
        self.tokens += len(roots)
        self.weight += float(np.square(roots, dtype=np.float64).sum())
        for total, values in (
            (self.quantized, quantized),
            (self.input_error, input_error),
            (self.residual_error, residual_error),
        ):
            total += (values * roots).sum(0, dtype=np.float64)
        self.covariance.add(quantized, quantized)
        self.input_error_cov.add(input_error, quantized)
        self.residual_error_cov += residual_error.T @ quantized

    def statistics(self, origin: Float32) -> QuantizedInputStats:
        """The statistics; the sums are used up, as covariances take their place in memory."""
        weight = self.weight or 1.0
        quantized, input_error = self.quantized / weight, self.input_error / weight
        residual_error = self.residual_error / weight
        center_products(self.residual_error_cov, weight, residual_error, quantized)
        mean = (origin + quantized).astype(np.float32)
        return QuantizedInputStats(
            (mean + input_error).astype(np.float32),
            mean,
            self.covariance.result(weight, quantized, quantized),
            self.input_error_cov.result(weight, input_error, quantized),
            residual_error.astype(np.float32),
            self.residual_error_cov,
            self.tokens,
        )
