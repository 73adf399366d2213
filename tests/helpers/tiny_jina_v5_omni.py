"""jina-embeddings-v5-omni in its layout at toy size: the text path, and a tensor of each part that texts do not use.

It is made of a toy of jina-embeddings-v5-text, with the rows of the special tokens that each task replaces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.vectors.arrays import Float32
from tests.helpers.exports import edit_tensors, read_tensors
from tests.helpers.tiny_jina_v5 import HIDDEN, TASKS, Size

TEXT = "language_model."
# A token that no text has, the one at the end of texts, and the letter a.
SPECIALS = (265, 0, 66)
TABLE = f"{TEXT}embed_tokens.weight"
OF_TEXT_CLASS: dict[Size, str] = {"small": "qwen3_vl_text", "nano": "llama"}
# Keys of config.json beside those of texts.
OTHER_KEYS: dict[Size, dict[str, Any]] = {
    "small": {
        "image_token_id": 3,
        "video_token_id": 265,
        "vision_start_token_id": 1,
        "vision_end_token_id": 2,
    },
    "nano": {"image_token_index": 3, "projector_hidden_act": "gelu"},
}
OTHER_TENSORS: dict[Size, tuple[str, ...]] = {
    "small": ("visual.patch_embed.proj.weight", "audio_tower.conv1.weight"),
    "nano": ("vision_tower.patch_embed.proj.weight", "audio_tower.conv1.weight"),
}


def rows_name(task: str) -> str:
    """Name of the tensor with a task's rows of the special tokens."""
    return f"task_token_embeddings.{task.replace('-', '_')}"


def make_omni(folder: Path, size: Size, *, seed: int = 5) -> Path:
    """Turn a checkpoint of jina-embeddings-v5-text into one of jina-embeddings-v5-omni, in place."""
    rng = np.random.default_rng(seed)

    def change(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[f"{TEXT}{name}"] = tensors.pop(name)
        others = [f"{part}.{task.replace('-', '_')}" for task in TASKS for part in ("mergers", "audio_projectors")]
        for name in (*OTHER_TENSORS[size], *(f"{part}.weight" for part in others)):
            tensors[name] = rng.normal(size=(4, 4)).astype(np.float32)
        for task in TASKS:
            tensors[rows_name(task)] = rng.normal(size=(len(SPECIALS), HIDDEN)).astype(np.float32)

    edit_tensors(folder / "model.safetensors", change)
    for task in TASKS:
        edit_tensors(folder / "adapters" / task / "adapter_model.safetensors", _of_omni)
    _write_config(folder, size)
    return folder


def rows_of(checkpoint: Path, task: str) -> Mapping[int, Float32]:
    """A task's rows of the special tokens, by token id."""
    rows = read_tensors(checkpoint / "model.safetensors")[rows_name(task)]
    return dict(zip(SPECIALS, rows, strict=True))


def _of_omni(tensors: dict[str, Any]) -> None:
    start = "base_model.model."
    for name in list(tensors):
        tensors[f"{start}{TEXT}{name.removeprefix(start)}"] = tensors.pop(name)


def _write_config(folder: Path, size: Size) -> None:
    path = folder / "config.json"
    text = json.loads(path.read_text())
    own = ("auto_map", "architectures", "task_names", "is_decoder")
    rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta")}
    axes = {"mrope_section": [4, 2, 2], "mrope_interleaved": True} if size == "small" else {}
    text = {key: value for key, value in text.items() if key not in (*own, "rope_scaling")}
    config = {
        "architectures": ["JinaEmbeddingsV5OmniModel"],
        "auto_map": {
            "AutoConfig": "modeling_jina_embeddings_v5_omni.JinaEmbeddingsV5OmniConfig",
            "AutoModel": "modeling_jina_embeddings_v5_omni.JinaEmbeddingsV5OmniModel",
        },
        "model_type": "jina_embeddings_v5_omni",
        "modality": "omni",
        "task_names": list(TASKS),
        "special_token_ids": list(SPECIALS),
        "text_config": {**text, "model_type": OF_TEXT_CLASS[size], "rope_parameters": {**rope, **axes}},
        "vision_config": {"depth": 2, "hidden_size": 4},
        "audio_config": {"d_model": 4},
        "audio_token_id": 265,
        "audio_start_token_id": None,
        "audio_end_token_id": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "5.0.0",
        **OTHER_KEYS[size],
    }
    path.write_text(json.dumps(config, indent=1))
