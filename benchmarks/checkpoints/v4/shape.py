"""Sizes of a checkpoint in the layout of jina-embeddings-v4."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextShape:
    """Sizes of the decoder; `vocabulary` is the number of rows of the embedding."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    mrope_section: tuple[int, int, int]
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    max_positions: int = 128_000

    @property
    def kv_size(self) -> int:
        """Number of outputs of the key and of the value projection."""
        return self.hidden // self.heads * self.kv_heads


@dataclass(frozen=True)
class V4VisionShape:
    """Sizes of the image tower; `window` is in pixels, `full_attention` has the indices of blocks without windows."""

    depth: int
    hidden: int
    heads: int
    inner: int
    full_attention: tuple[int, ...]
    out_hidden: int
    patch: int = 14
    merge: int = 2
    temporal: int = 2
    window: int = 112
    channels: int = 3

    @property
    def merged(self) -> int:
        """Number of values of the patches that are merged to one token."""
        return self.hidden * self.merge**2


@dataclass(frozen=True)
class V4Shape:
    """Sizes of a checkpoint."""

    text: TextShape
    vision: V4VisionShape
    projector_dim: int
    matryoshka: tuple[int, ...]
    rank: int
    alpha: int
    min_pixels: int = 3136
    max_pixels: int = 602_112


@dataclass(frozen=True)
class Spread:
    """Standard deviations of random weights, by kind of tensor; the mean is 1 for norms, else 0.

    `features` is that of the image tower's last matrix, whose outputs replace embeddings; `update` is that of an
    adapter's B A relative to the matrix that it changes.
    """

    linear: float
    embedding: float
    features: float
    bias: float
    norm: float
    update: float


TINY = V4Shape(
    text=TextShape(
        layers=3, hidden=64, heads=4, kv_heads=2, inner=96, vocabulary=640, mrope_section=(2, 3, 3), max_positions=4096
    ),
    vision=V4VisionShape(depth=4, hidden=32, heads=2, inner=44, full_attention=(1, 3), out_hidden=64),
    projector_dim=16,
    matryoshka=(16, 32, 64),
    rank=4,
    alpha=4,
)
REAL = V4Shape(
    text=TextShape(
        layers=36, hidden=2048, heads=16, kv_heads=2, inner=11008, vocabulary=151_936, mrope_section=(16, 24, 24)
    ),
    vision=V4VisionShape(
        depth=32, hidden=1280, heads=16, inner=3420, full_attention=(7, 15, 23, 31), out_hidden=2048
    ),
    projector_dim=128,
    matryoshka=(128, 256, 512, 1024, 2048),
    rank=32,
    alpha=32,
)  # fmt: skip

# A small model has fewer inputs to sum, so its weights are larger.
TINY_SPREAD = Spread(linear=0.15, embedding=0.3, features=0.05, bias=0.1, norm=0.2, update=0.3)
REAL_SPREAD = Spread(linear=0.02, embedding=0.02, features=0.01, bias=0.02, norm=0.1, update=0.02)
