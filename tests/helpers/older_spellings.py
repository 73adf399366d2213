"""Tiny checkpoints of GTE and NomicBERT as the code has them that transformers' classes were made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.exports import Arrays, read_tensors

GTE_NAMES = {
    "layers.": "encoder.layer.", "self_attn.": "attention.",
    "post_attention_layernorm": "attn_ln", "post_mlp_layernorm": "mlp_ln",
}  # fmt: skip
GTE_CONFIG = {
    "model_type": "new", "architectures": ["NewModel"], "rope_parameters": None, "rope_theta": 20_000, "pack_qkv": True,
    "rope_scaling": {"factor": 8.0, "type": "ntk"}, "layer_norm_type": "layer_norm", "logn_attention_clip1": False,
    "logn_attention_scale": False, "position_embedding_type": "rope", "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "auto_map": {
        "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
        "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel",
        "AutoModelForMaskedLM": "Alibaba-NLP/new-impl--modeling.NewForMaskedLM",
    },
}  # fmt: skip
NOMIC_NAMES = {
    "layers.": "encoder.layers.", "embeddings.LayerNorm": "emb_ln", "self_attn.o_proj": "attn.out_proj",
    "self_attn.": "attn.", "mlp.up_proj": "mlp.fc11", "mlp.gate_proj": "mlp.fc12", "mlp.down_proj": "mlp.fc2",
    "post_attention_layernorm": "norm1", "post_mlp_layernorm": "norm2",
}  # fmt: skip
NOMIC_CONFIG = {
    "model_type": "nomic_bert", "architectures": ["NomicBertModel"], "hidden_size": None, "num_hidden_layers": None,
    "num_attention_heads": None, "intermediate_size": None, "max_position_embeddings": None, "layer_norm_eps": None,
    "hidden_act": None, "rope_parameters": None,
    "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 2048, "layer_norm_epsilon": 1e-12,
    "activation_function": "swiglu", "attn_pdrop": 0.0, "causal": False, "dense_seq_output": True, "embd_pdrop": 0.0,
    "fused_bias_fc": True, "fused_dropout_add_ln": True, "max_trained_positions": 2048, "mlp_fc1_bias": False,
    "mlp_fc2_bias": False, "pad_vocab_size_multiple": 64, "parallel_block": False, "parallel_block_tied_norm": False,
    "prenorm": False, "qkv_proj_bias": False, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0,
    "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None, "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True,
    "use_flash_attn": True, "use_rms_norm": False, "use_xentropy": True, "use_cache": True,
    "auto_map": {
        "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
        "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
    },
}  # fmt: skip


def older_gte(folder: Path) -> None:
    """Respell a checkpoint of GTE, with rotary positions of the type ntk."""

    def respelled(tensors: Arrays) -> Arrays:
        renamed = _renamed(_packed(_packed_gates(tensors), "qkv_proj"), GTE_NAMES)
        return {f"new.{name}": tensor for name, tensor in renamed.items()}

    _respell(folder, GTE_CONFIG, respelled)


def older_nomic(folder: Path) -> None:
    """Respell a checkpoint of NomicBERT."""
    _respell(folder, NOMIC_CONFIG, lambda tensors: _renamed(_packed(tensors, "Wqkv"), NOMIC_NAMES))


def _respell(folder: Path, changes: Mapping[str, Any], respelled: Callable[[Arrays], Arrays]) -> None:
    """None takes a key of config.json out, but rope_scaling and the like of the older code may be null."""
    path = folder / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if changes.get(key, value) is not None}
    added = {key: value for key, value in changes.items() if value is not None or key.startswith("rotary")}
    path.write_text(json.dumps(config | added))
    weights = folder / "model.safetensors"
    write_safetensors(weights, respelled(read_tensors(weights)), {"format": "pt"})


def _packed(tensors: Arrays, name: str) -> Arrays:
    """Queries, keys and values of a layer in one tensor."""
    result = dict(tensors)
    for key in [key for key in tensors if ".self_attn.q_proj." in key]:
        parts = [result.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        result[key.replace("q_proj", name)] = np.concatenate(parts)
    return result


def _packed_gates(tensors: Arrays) -> Arrays:
    result = dict(tensors)
    for key in [key for key in tensors if ".mlp.up_proj." in key]:
        parts = [result.pop(key.replace("up_proj", name)) for name in ("up_proj", "gate_proj")]
        result[key.replace("up_proj", "up_gate_proj")] = np.concatenate(parts)
    return result


def _renamed(tensors: Arrays, names: Mapping[str, str]) -> Arrays:
    result = {}
    for key, tensor in tensors.items():
        for newer, older in names.items():
            key = key.replace(newer, older)
        result[key] = tensor
    return result
