"""Contents of the JSON files of the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.checkpoints.v4.layout import TASKS, decoder_linears
from benchmarks.checkpoints.v4.shape import TextShape, V4Shape, V4VisionShape
from benchmarks.checkpoints.v4.stream import Dtype
from embedpack_export.families.model import PROJECTOR

TORCH_DTYPES: Mapping[Dtype, str] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def write_json(path: Path, content: object) -> None:
    """Write a file with indentation and a final newline."""
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def model_config(shape: V4Shape, ids: Mapping[str, int], dtype: Dtype) -> dict[str, Any]:
    """Content of config.json."""
    ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    return {
        "architectures": ["JinaEmbeddingsV4Model"],
        "model_type": "qwen2_5_vl",
        **ends,
        "hidden_size": shape.text.hidden,
        "image_token_id": ids["<|image_pad|>"],
        "initializer_range": 0.02,
        "matryoshka_dims": list(shape.matryoshka),
        "multi_vector_projector_dim": shape.projector_dim,
        "pretrained_peft_model_name_or_path": None,
        "single_vector_pool_strategy": "mean",
        "task_names": list(TASKS),
        "text_config": {**_text_config(shape.text), **ends, "torch_dtype": TORCH_DTYPES[dtype]},
        "tie_word_embeddings": True,
        "torch_dtype": TORCH_DTYPES[dtype],
        "truncate_dim": None,
        "use_cache": True,
        "verbosity": 1,
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {**_vision_config(shape.vision), "torch_dtype": TORCH_DTYPES[dtype]},
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_token_id": ids["<|vision_pad|>"],
    }


def preprocessor_config(shape: V4Shape) -> dict[str, Any]:
    """Content of preprocessor_config.json."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": CLIP_MEAN,
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": CLIP_STD,
        "max_pixels": shape.max_pixels,
        "merge_size": shape.vision.merge,
        "min_pixels": shape.min_pixels,
        "patch_size": shape.vision.patch,
        "processor_class": "JinaEmbeddingsV4Processor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": shape.max_pixels, "shortest_edge": shape.min_pixels},
        "temporal_patch_size": shape.vision.temporal,
    }


def tokenizer_config(ids: Mapping[str, int]) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(number): {"content": name, **flags} for name, number in sorted(ids.items(), key=lambda item: item[1])
        },
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "model_max_length": 131_072,
        "pad_token": "<|endoftext|>",
        "processor_class": "JinaEmbeddingsV4Processor",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def adapter_config(shape: V4Shape) -> dict[str, Any]:
    """Content of adapters/adapter_config.json, with the fields that PEFT 0.15 writes."""
    projections = "|".join(sorted(name.rsplit(".", 1)[1] for name in decoder_linears(shape.text)))
    return {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "corda_config": None,
        "eva_config": None,
        "exclude_modules": ".*visual.*",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": shape.alpha,
        "lora_bias": False,
        "lora_dropout": 0.1,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": shape.rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": f"(.*model.*({projections})$|.*{PROJECTOR}$)",
        "task_type": "FEATURE_EXTRACTION",
        "trainable_token_indices": None,
        "use_dora": False,
        "use_rslora": False,
    }


def sorted_decoder_config(text: TextShape, others: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a Qwen2 decoder and others, in alphabetical order."""
    settings = {
        "hidden_act": "silu",
        "hidden_size": text.hidden,
        "intermediate_size": text.inner,
        "max_position_embeddings": text.max_positions,
        "num_attention_heads": text.heads,
        "num_hidden_layers": text.layers,
        "num_key_value_heads": text.kv_heads,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "vocab_size": text.vocabulary,
    }
    return dict(sorted({**settings, **others}.items()))


def _text_config(text: TextShape) -> dict[str, Any]:
    others = {
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "max_window_layers": text.layers,
        "model_type": "qwen2_5_vl_text",
        "rope_scaling": {"mrope_section": list(text.mrope_section), "rope_type": "default", "type": "default"},
        "sliding_window": 32_768,
        "use_cache": True,
    }
    return sorted_decoder_config(text, others)


def _vision_config(vision: V4VisionShape) -> dict[str, Any]:
    return {
        "depth": vision.depth,
        "fullatt_block_indexes": list(vision.full_attention),
        "hidden_act": "silu",
        "hidden_size": vision.hidden,
        "in_channels": vision.channels,
        "in_chans": vision.channels,
        "initializer_range": 0.02,
        "intermediate_size": vision.inner,
        "model_type": "qwen2_5_vl",
        "num_heads": vision.heads,
        "out_hidden_size": vision.out_hidden,
        "patch_size": vision.patch,
        "spatial_merge_size": vision.merge,
        "spatial_patch_size": vision.patch,
        "temporal_patch_size": vision.temporal,
        "tokens_per_second": 2,
        "window_size": vision.window,
    }
