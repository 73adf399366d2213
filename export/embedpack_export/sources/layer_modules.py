"""Dense and LayerNorm modules of sentence-transformers: a folder with config.json and model.safetensors each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from embedpack.errors import CheckpointError, unknown
from embedpack.storage.safetensors import StoredTensor, open_safetensors
from embedpack_export.sources.checkpoint import SINGLE, Size, check_is_float, read_json
from embedpack_export.sources.files import check_file, exists
from embedpack_export.sources.head_layers import ActivationName, Dense, Layer, LayerNorm
from embedpack_export.sources.key_rules import KeyTable, check_keys
from embedpack_export.sources.modules_json import Module
from embedpack_export.sources.sentence_transformers_keys import DENSE, LAYER_NORM

ACTIVATIONS: Mapping[str, ActivationName] = {
    "Identity": "none",
    "ReLU": "relu",
    "Tanh": "tanh",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}
# Class path of an activation, in full as sentence-transformers saves it, or as it is imported.
ACTIVATION = re.compile(r"torch\.nn\.(?:modules\.(?:activation|linear)\.)?(\w+)")


class _DenseFields(msgspec.Struct, frozen=True):
    in_features: Size
    out_features: Size
    bias: bool = True
    # The default of sentence-transformers.
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool | None = None


class _NormFields(msgspec.Struct, frozen=True):
    dimension: Size


@dataclass(frozen=True)
class LayerModule:
    """A layer of the head with its tensors and files."""

    layer: Layer
    tensors: Mapping[str, StoredTensor]  # by the names that `layer` gives them
    files: tuple[Path, ...]


def read_layer(folder: Path, module: Module, dense: KeyTable = DENSE) -> LayerModule:
    """Read a Dense or LayerNorm module of the model in `folder`; `dense` has the rules of the keys of a Dense.

    Raises:
        CheckpointError: a file is missing or damaged, a value is not supported, or a tensor is missing, of another
            shape than config.json states, or not described by it.
    """
    place = folder / module.path
    config, weights = place / "config.json", place / SINGLE
    layer = _dense(config, folder, module, dense) if module.kind == "Dense" else _layer_norm(config, folder, module)
    if not exists(weights):
        raise CheckpointError(
            f"{weights}: missing; other formats are not read, as pickled weights run code when they are loaded: "
            "save the model again with sentence-transformers, SentenceTransformer(folder).save(folder)"
        )
    check_file(weights, folder)
    stored = open_safetensors(weights, CheckpointError).tensors
    tensors = {f"{module.path}.{name}": tensor for name, tensor in stored.items()}
    _check_tensors(weights, layer, tensors)
    return LayerModule(layer, tensors, (config, weights))


def _check_tensors(path: Path, layer: Layer, tensors: Mapping[str, StoredTensor]) -> None:
    own = {name: name.partition(".")[2] for name in (*layer.shapes, *tensors)}
    for name, shape in layer.shapes.items():
        if name not in tensors:
            raise CheckpointError(f"{path}: {own[name]} is missing, which config.json next to it asks for")
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"{path}: {own[name]} has the shape {list(tensors[name].shape)}, config.json next to it needs "
                f"{list(shape)}"
            )
        check_is_float(tensors[name])
    unused = sorted(set(tensors) - set(layer.shapes))
    if unused:
        raise CheckpointError(f"{path}: {own[unused[0]]} is not part of the module that config.json next to it states")


def _dense(path: Path, folder: Path, module: Module, keys: KeyTable) -> Dense:
    check_keys(path, read_json(path, dict[str, Any], folder), keys)
    fields = read_json(path, _DenseFields, folder)
    found = ACTIVATION.fullmatch(fields.activation_function)
    if found is None or found[1] not in ACTIVATIONS:
        known = [f"torch.nn.{kind}" for kind in ACTIVATIONS]
        raise CheckpointError(f"{path}: {unknown('activation_function', fields.activation_function, known)}")
    activation, residual = ACTIVATIONS[found[1]], bool(fields.use_residual)
    name = f"{module.path}.linear"
    return Dense(name, fields.in_features, fields.out_features, fields.bias, activation, residual)


def _layer_norm(path: Path, folder: Path, module: Module) -> LayerNorm:
    check_keys(path, read_json(path, dict[str, Any], folder), LAYER_NORM)
    return LayerNorm(f"{module.path}.norm", read_json(path, _NormFields, folder).dimension)
