"""Scaling of rotary frequencies for longer texts, with the keys and the arithmetic of transformers.

Each kind is the object `rope_scaling` of config.json (`rope_parameters` of transformers 5). Its method `scaled` returns
frequencies, float32 [n] of 2 n rotated channels, from those without scaling and their base `theta`, as transformers'
`modeling_rope_utils.py` does.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np

from embedpack.vectors.arrays import Float32

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Length = Annotated[int, msgspec.Meta(ge=1)]


class _Scaling(msgspec.Struct, frozen=True, kw_only=True, tag_field="rope_type", forbid_unknown_fields=True):
    """Parts that all kinds have."""

    factor: Positive  # about the ratio of the lengths after and before the scaling

    @property
    def amplitude(self) -> float:
        """Factor of cosines and sines."""
        return 1.0

    def tokens(self, positions: int) -> int:
        """Length of the texts that the frequencies are made for; `positions` is max_position_embeddings."""
        return positions


class DynamicScaling(_Scaling, frozen=True, tag="dynamic"):
    """A base that grows with texts beyond `max_position_embeddings`: there are none, so nothing is scaled."""

    def scaled(self, plain: Float32, theta: float) -> Float32:
        """The same frequencies."""
        return plain


class LinearScaling(_Scaling, frozen=True, tag="linear"):
    """Positions divided by the factor (Chen et al. 2023, arXiv 2306.15595)."""

    def scaled(self, plain: Float32, theta: float) -> Float32:
        """Frequencies divided by the factor."""
        return plain / np.float32(self.factor)

    def tokens(self, positions: int) -> int:
        """The positions times the factor, as max_position_embeddings is that of the model before the scaling."""
        return int(self.factor * positions)


class Llama3Scaling(_Scaling, frozen=True, tag="llama3"):
    """Low frequencies divided by the factor, high ones kept, a ramp between (Llama 3.1)."""

    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Length

    def __post_init__(self) -> None:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor is {self.high_freq_factor}; it must be larger than low_freq_factor, "
                f"{self.low_freq_factor}"
            )

    def scaled(self, plain: Float32, theta: float) -> Float32:
        """Frequencies by the rotations that each makes within the original length."""
        rotations = self.original_max_position_embeddings / (2 * math.pi / plain)
        ramp = (rotations - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = np.clip(ramp, 0, 1).astype(np.float32)
        return (1 - kept) * plain / np.float32(self.factor) + kept * plain


class YarnScaling(_Scaling, frozen=True, tag="yarn"):
    """As Llama 3's, with a ramp along the channels and scaled attention (YaRN, Peng et al. 2023, arXiv 2309.00071)."""

    original_max_position_embeddings: Length
    attention_factor: Positive | None = None
    beta_fast: Positive = 32.0  # rotations within the original length from which on a frequency is kept
    beta_slow: Positive = 1.0  # rotations below which it is divided by the factor
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True  # true if the ramp begins and ends at whole channels

    @property
    def amplitude(self) -> float:
        """Square root of the factor of attention scores (section 3.4)."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._mscale(self.mscale) / self._mscale(self.mscale_all_dim)
        return self._mscale(1.0)

    def scaled(self, plain: Float32, theta: float) -> Float32:
        """Frequencies by the rotations that each makes within the original length (section 3.2)."""
        low, high = self._channel(self.beta_fast, theta, plain.size), self._channel(self.beta_slow, theta, plain.size)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * plain.size - 1)
        width = high - low or 0.001
        ramp = np.clip((np.arange(plain.size, dtype=np.float32) - np.float32(low)) / np.float32(width), 0, 1)
        return plain / np.float32(self.factor) * ramp + plain * (1 - ramp)

    def tokens(self, positions: int) -> int:
        """The original length times the factor."""
        return int(self.factor * self.original_max_position_embeddings)

    def _mscale(self, scale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * scale * math.log(self.factor) + 1.0

    def _channel(self, rotations: float, theta: float, size: int) -> float:
        """Channel whose frequency makes so many rotations within the original length."""
        length = self.original_max_position_embeddings
        return size * math.log(length / (rotations * 2 * math.pi)) / math.log(theta)


RopeScaling = DynamicScaling | LinearScaling | Llama3Scaling | YarnScaling
