"""The vision tower of jina-clip-v2 in torch, tensor by tensor under the names of the checkpoint, without padding.

It is EVA02: pre-norm blocks, a norm of the mixed values of the attention and one within the gated feed-forward network,
rotary positions of patches along rows and columns. The vector of an image is its class token after the last norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from embedpack.errors import CheckpointError
from embedpack_export.sources.checkpoint import Checkpoint

PREFIX = "vision_model."
EPSILON = 1e-6
ROPE_THETA = 10_000.0


class Attention(torch.nn.Module):
    """Self-attention of one image, [rows, width]; keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (torch.nn.Linear(width, width, bias=False) for _ in range(3))
        self.q_bias, self.v_bias = (torch.nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.inner_attn_ln = torch.nn.LayerNorm(width, EPSILON)
        self.proj = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """Mixed values [rows, width]."""
        q, k, v = self.q_proj(x) + self.q_bias, self.k_proj(x), self.v_proj(x) + self.v_bias
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(0, 1) for each in (q, k, v))
        q, k = (torch.cat([each[:, :1], rotated(each[:, 1:], angles)], dim=1) for each in (q, k))
        scores = (q @ k.transpose(1, 2)) / q.shape[-1] ** 0.5
        mixed = scores.softmax(-1) @ v
        result: torch.Tensor = self.proj(self.inner_attn_ln(mixed.transpose(0, 1).flatten(1)))
        return result


class SwiGlu(torch.nn.Module):
    """Gated feed-forward network with a norm before the last layer."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1, self.w2 = torch.nn.Linear(width, inner), torch.nn.Linear(width, inner)
        self.ffn_ln = torch.nn.LayerNorm(inner, EPSILON)
        self.w3 = torch.nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """w3(norm(silu(w1(x)) * w2(x))), [rows, width]."""
        result: torch.Tensor = self.w3(self.ffn_ln(torch.nn.functional.silu(self.w1(x)) * self.w2(x)))
        return result


class Block(torch.nn.Module):
    """A pre-norm layer."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(width, EPSILON), torch.nn.LayerNorm(width, EPSILON)
        self.attn, self.mlp = Attention(width, heads), SwiGlu(width, inner)

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """The next hidden states [rows, width]."""
        x = x + self.attn(self.norm1(x), angles)
        result: torch.Tensor = x + self.mlp(self.norm2(x))
        return result


class PatchEmbedding(torch.nn.Module):
    """Convolution whose kernel is a patch."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = torch.nn.Conv2d(3, width, patch_size, patch_size)


@dataclass(frozen=True)
class EvaSizes:
    """Values of vision_config."""

    width: int
    heads: int
    layers: int
    inner: int
    patch_size: int
    grid: int
    trained_grid: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> EvaSizes:
        """Sizes in vision_config."""
        return cls(
            width=config["width"],
            heads=config["width"] // config["head_width"],
            layers=config["layers"],
            inner=int(config["width"] * config["mlp_ratio"]),
            patch_size=config["patch_size"],
            grid=config["image_size"] // config["patch_size"],
            trained_grid=config["pt_hw_seq_len"],
        )


class EvaTower(torch.nn.Module):
    """The tower of one image, pixels float32 [3, size, size] to its vector [width]."""

    def __init__(self, sizes: EvaSizes) -> None:
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, sizes.grid**2 + 1, sizes.width))
        self.patch_embed = PatchEmbedding(sizes.width, sizes.patch_size)
        blocks = (Block(sizes.width, sizes.heads, sizes.inner) for _ in range(sizes.layers))
        self.blocks = torch.nn.ModuleList(blocks)
        self.norm = torch.nn.LayerNorm(sizes.width, EPSILON)
        self._angles = patch_angles(sizes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The vector of an image before it gets the length 1."""
        patches = self.patch_embed.proj(pixels[None])[0].flatten(1).T
        x = torch.cat([self.cls_token[0], patches]) + self.pos_embed[0]
        for block in self.blocks:
            x = block(x, self._angles)
        result: torch.Tensor = self.norm(x[0])
        return result


def patch_angles(sizes: EvaSizes) -> torch.Tensor:
    """Rotary angle of each pair of channels of each patch, [patches, head size / 2]."""
    size = sizes.width // sizes.heads // 2
    frequencies = 1 / ROPE_THETA ** (torch.arange(0, size, 2).float() / size)
    steps = torch.arange(sizes.grid) / sizes.grid * sizes.trained_grid
    of_place = torch.outer(steps, frequencies)
    rows, columns = torch.meshgrid(torch.arange(sizes.grid), torch.arange(sizes.grid), indexing="ij")
    return torch.cat([of_place[rows.flatten()], of_place[columns.flatten()]], dim=1)


def rotated(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn each pair of neighbouring channels of x, [heads, patches, head size]."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def load_eva_tower(checkpoint: Checkpoint) -> EvaTower:
    """Load the tower in float32, in eval mode.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    tower = EvaTower(EvaSizes.of(checkpoint.config["vision_config"]))
    names = [name for name in checkpoint.tensors if name.startswith(PREFIX)]
    state = {name.removeprefix(PREFIX): torch.from_numpy(checkpoint.tensors[name].float32()) for name in names}
    try:
        tower.load_state_dict(state)
    except RuntimeError as cause:
        raise CheckpointError(f"{checkpoint.folder}: the vision tower does not fit config.json: {cause}") from cause
    return tower.eval()
