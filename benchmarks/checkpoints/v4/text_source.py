"""Trained decoder and tokenizer of a Qwen2 or Llama folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checkpoints.v4.layout import Entry
from benchmarks.checkpoints.v4.shape import TextShape
from benchmarks.checkpoints.v4.stream import CHUNK, Dtype
from embedpack.errors import CheckpointError
from embedpack.storage.safetensors import StoredTensor, open_safetensors
from embedpack.vectors.arrays import Float32

DTYPES: Mapping[str, Dtype] = {"BF16": "BF16", "F16": "F16", "F32": "F32"}
EMBEDDING = "model.embed_tokens.weight"
# mrope_section of the real model, whose proportions are kept.
SECTIONS = (16, 24, 24)


@dataclass(frozen=True)
class TextSource:
    """Tensors of the decoder, read on demand, and path of its tokenizer."""

    shape: TextShape
    dtype: Dtype
    tokenizer: Path
    tensors: Mapping[str, StoredTensor]

    def chunks(self, entry: Entry) -> Iterator[Float32] | None:
        """Values of an entry; zeros for a bias that the model does not have; None for another tower.

        Raises:
            CheckpointError: the tensor is missing or has another shape.
        """
        if not entry.name.startswith("model."):
            return None
        tensor = self.tensors.get(entry.name)
        if tensor is None and entry.kind == "bias":
            return iter([np.zeros(entry.shape, np.float32)])
        if tensor is None or tensor.shape[1:] != entry.shape[1:] or tensor.shape[0] > entry.shape[0]:
            raise CheckpointError(
                f"{self.tokenizer.parent}: {entry.name} is missing, or its shape is not {list(entry.shape)}"
            )
        return _rows(tensor)

    def deviation(self, name: str) -> float:
        """Root mean square of a tensor."""
        tensor = self.tensors[name]
        squares = sum(float(np.square(rows, dtype=np.float64).sum()) for rows in _rows(tensor))
        return math.sqrt(squares / math.prod(tensor.shape))


def read_text_source(folder: Path) -> TextSource:
    """Open a folder.

    Raises:
        CheckpointError: the decoder has parts that Qwen2.5-VL does not have.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    _check(folder, config)
    tensors = {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in open_safetensors(path, CheckpointError).tensors.items()
    }
    if EMBEDDING not in tensors:
        raise CheckpointError(f"{folder}: no {EMBEDDING} in its safetensors files")
    heads = config["num_attention_heads"]
    shape = TextShape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads", heads),
        inner=config["intermediate_size"],
        vocabulary=tensors[EMBEDDING].shape[0],
        mrope_section=mrope_section(config["hidden_size"] // heads // 2),
        rope_theta=_rope_theta(folder, config),
        rms_norm_eps=config["rms_norm_eps"],
        max_positions=config["max_position_embeddings"],
    )
    return TextSource(shape, DTYPES[tensors[EMBEDDING].dtype], folder / "tokenizer.json", tensors)


def mrope_section(half: int) -> tuple[int, int, int]:
    """Split half a head's channels between time, height and width, in the proportions of the real model."""
    time = half * SECTIONS[0] // sum(SECTIONS)
    height = (half - time) // 2
    return time, height, half - time - height


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("model_type") not in ("qwen2", "llama"):
        raise CheckpointError(f"{folder}: model_type is {config.get('model_type')!r}; supported: qwen2, llama")
    for name in ("rope_scaling", "use_sliding_window", "attention_bias", "mlp_bias"):
        if config.get(name):
            raise CheckpointError(f"{folder}: {name} is {config[name]!r}, which Qwen2.5-VL does not have")
    head = config["hidden_size"] // config["num_attention_heads"]
    if config.get("head_dim") not in (None, head):
        raise CheckpointError(f"{folder}: head_dim is {config['head_dim']}, Qwen2.5-VL takes {head}")


def _rope_theta(folder: Path, config: Mapping[str, Any]) -> float:
    # transformers 5 moved it into rope_parameters.
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10_000.0)}
    if rope.get("rope_type", "default") != "default":
        raise CheckpointError(f"{folder}: rope_type is {rope['rope_type']!r}, which Qwen2.5-VL does not have")
    return float(rope["rope_theta"])


def _rows(tensor: StoredTensor) -> Iterator[Float32]:
    step = max(1, CHUNK // math.prod(tensor.shape[1:]))
    for start in range(0, tensor.shape[0], step):
        yield tensor.rows(start, min(start + step, tensor.shape[0])).ravel()
