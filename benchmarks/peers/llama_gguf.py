"""Conversion of the checkpoint to GGUF, quantized by llama.cpp; without a tokenizer: inputs are ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from safetensors import safe_open

from benchmarks.peers.job import ConvertJob, PeerSource

FILE_TYPES = {"Q8_0": "MOSTLY_Q8_0", "Q4_0": "MOSTLY_Q4_0", "Q4_K_M": "MOSTLY_Q4_K_M", "BF16": "MOSTLY_BF16"}
POOLING = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS, "last": gguf.PoolingType.LAST}
UNUSED = ("pooler.", "embeddings.position_ids", "lm_head.")
Writer = Any


def path_of(models: str, name: str) -> Path:
    """Path of a format's file."""
    return Path(models) / f"llama-{name}.gguf"


def convert(job: ConvertJob) -> None:
    """Write a float32 file, unless it exists, then quantize it.

    Raises:
        ValueError: llama.cpp does not support the model, or refuses to quantize it.
    """
    full = path_of(job.source.models, "F32")
    if not full.exists():
        _write(job.source, full)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{FILE_TYPES[job.format]}")
    parameters.nthread = 1
    target = path_of(job.source.models, job.format)
    if llama_cpp.llama_model_quantize(str(full).encode(), str(target).encode(), parameters):
        raise ValueError(f"llama.cpp cannot quantize {full.name} to {job.format}")


def _write(source: PeerSource, path: Path) -> None:
    folder = Path(source.checkpoint)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config["model_type"] not in DESCRIPTIONS:
        raise ValueError(
            f"GGUF files of {config['model_type']} are not supported; supported: {', '.join(DESCRIPTIONS)}"
        )
    kind, describe = DESCRIPTIONS[config["model_type"]]
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[kind])
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_pooling_type(POOLING[source.pooling])
    describe(writer, config)
    names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                _add(writer, names, name, tensors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def _add(writer: Writer, names: Any, name: str, tensors: Any) -> None:
    if name.startswith(UNUSED):
        return
    gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if gguf_name is None:
        raise ValueError(f"llama.cpp has no tensor for {name}")
    writer.add_tensor(gguf_name, np.asarray(tensors.get_tensor(name), np.float32))


def _describe_bert(writer: Writer, config: dict[str, Any]) -> None:
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_causal_attention(False)


def _describe_qwen2(writer: Writer, config: dict[str, Any]) -> None:
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])


DESCRIPTIONS: dict[str, tuple[Any, Callable[[Writer, dict[str, Any]], None]]] = {
    "bert": (gguf.MODEL_ARCH.BERT, _describe_bert),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, _describe_qwen2),
}
