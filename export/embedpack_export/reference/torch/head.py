"""Heads in torch: pooling and layers of single vectors in float64, layers of token vectors as part of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from embedpack.pack.manifest import Pooling
from embedpack.storage.safetensors import StoredTensor
from embedpack.vectors.arrays import Float32
from embedpack_export.families.heads import SingleHead
from embedpack_export.sources.head_layers import ActivationName, Dense, Layer

ACTIVATIONS: Mapping[ActivationName, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": torch.nn.Identity(),
    "relu": torch.nn.ReLU(),
    "tanh": torch.nn.Tanh(),
    "gelu": torch.nn.GELU(),
    "silu": torch.nn.SiLU(),
    "sigmoid": torch.nn.Sigmoid(),
}


def _weighted_mean(states: torch.Tensor) -> torch.Tensor:
    weights = torch.arange(1, states.shape[1] + 1, dtype=states.dtype)
    return torch.einsum("rtd,t->rd", states, weights / weights.sum())


POOL: Mapping[Pooling, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda states: states.mean(1),
    "cls": lambda states: states[:, 0],
    "last": lambda states: states[:, -1],
    "max": lambda states: states.amax(1),
    "weighted_mean": _weighted_mean,
    "mean_sqrt_len": lambda states: states.sum(1) / states.shape[1] ** 0.5,
}


class TorchHead:
    """Head of single vectors, for hidden states of texts of equal length."""

    def __init__(self, head: SingleHead, tensors: Mapping[str, StoredTensor]) -> None:
        """`tensors` has those of the layers, and any others."""
        self._pool = POOL[head.pooling]
        self._normalize = head.normalize
        self._layers = [open_layer(layer, tensors, torch.float64) for layer in head.layers]

    def __call__(self, states: torch.Tensor) -> Float32:
        """Vectors float32 [rows, dimensions] of hidden states [rows, length, hidden]."""
        vectors = self._pool(states.double())
        for layer in self._layers:
            vectors = layer(vectors)
        return unit(vectors) if self._normalize else single_precision(vectors)


def unit(vectors: torch.Tensor) -> Float32:
    """Vectors of length 1, float32 [..., dimensions]."""
    return single_precision(torch.nn.functional.normalize(vectors.double(), dim=-1))


def single_precision(vectors: torch.Tensor) -> Float32:
    """Vectors in float32."""
    result: Float32 = vectors.float().numpy()
    return result


def open_layer(
    layer: Layer, tensors: Mapping[str, StoredTensor], dtype: torch.dtype
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A layer as a function of vectors, computed in `dtype`."""
    linear, activate = load_layer(layer, tensors).to(dtype), activation(layer)
    if not isinstance(layer, Dense) or not layer.residual:
        return lambda vectors: activate(linear(vectors))
    name = layer.residual_module
    if name is None:
        return lambda vectors: activate(linear(vectors)) + vectors
    matrix = torch.from_numpy(tensors[f"{name}.weight"].float32()).to(dtype)
    return lambda vectors: activate(linear(vectors)) + vectors @ matrix.T


def load_layer(layer: Layer, tensors: Mapping[str, StoredTensor]) -> torch.nn.Module:
    """A layer with its weights in float32; of a Dense the linear part, without its activation."""
    module = (
        torch.nn.Linear(layer.inputs, layer.outputs, layer.bias)
        if isinstance(layer, Dense)
        else torch.nn.LayerNorm(layer.outputs, layer.epsilon, bias=layer.bias)
    )
    own = (name for name in layer.shapes if name.startswith(f"{layer.module}."))
    state = {name.rpartition(".")[2]: torch.from_numpy(tensors[name].float32()) for name in own}
    module.load_state_dict(state)
    return module


def activation(layer: Layer) -> Callable[[torch.Tensor], torch.Tensor]:
    """Activation of the result of a layer."""
    return ACTIVATIONS[layer.activation if isinstance(layer, Dense) else "none"]
