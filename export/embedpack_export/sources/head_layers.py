"""Layers of heads, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Activations of torch.nn with their defaults.
ActivationName = Literal["none", "relu", "tanh", "gelu", "silu", "sigmoid"]


@dataclass(frozen=True)
class Dense:
    """A linear layer, x W^T + b, and an activation of its result; `residual`: the input is added to that."""

    module: str  # name of the module; its tensors are `module`.weight [outputs, inputs] and `module`.bias [outputs]
    inputs: int
    outputs: int
    bias: bool
    activation: ActivationName = "none"
    residual: bool = False

    @property
    def residual_module(self) -> str | None:
        """Name of the linear layer, without a bias, of an input that has other dimensions than the result."""
        if not self.residual or self.inputs == self.outputs:
            return None
        return f"{self.module.removesuffix('linear')}residual"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        shapes: dict[str, tuple[int, ...]] = {f"{self.module}.weight": (self.outputs, self.inputs)}
        if self.residual_module is not None:
            shapes[f"{self.residual_module}.weight"] = (self.outputs, self.inputs)
        return shapes | ({f"{self.module}.bias": (self.outputs,)} if self.bias else {})


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the dimensions of a vector."""

    module: str  # name of the module; its tensors are `module`.weight and `module`.bias [outputs]
    outputs: int
    # Of torch.nn.LayerNorm.
    epsilon: float = 1e-5
    bias: bool = True

    @property
    def inputs(self) -> int:
        """Dimensions of the vectors that it takes."""
        return self.outputs

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        leaves = ("weight", "bias") if self.bias else ("weight",)
        return {f"{self.module}.{leaf}": (self.outputs,) for leaf in leaves}


Layer = Dense | LayerNorm


@dataclass(frozen=True)
class TokenLogits:
    """Difference of the logits of two tokens: x (t - f)^T with their rows t and f of the language model's head."""

    module: str  # name of the module; its tensors are `module`.true and `module`.false [inputs]
    inputs: int

    @property
    def outputs(self) -> int:
        """Dimensions of the result: one difference."""
        return 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name."""
        return {f"{self.module}.{leaf}": (self.inputs,) for leaf in ("true", "false")}
