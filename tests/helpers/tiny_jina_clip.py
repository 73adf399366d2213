"""jina-clip-v2 in its published layout at toy size: files, keys of config.json, names and shapes of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.storage.safetensors import write_safetensors
from tests.helpers import tiny_jina_v3 as v3
from tests.helpers.exports import Arrays
from tests.helpers.sentencepiece import make_unigram

HIDDEN, INNER, LAYERS, RANK = v3.HIDDEN, v3.INNER, v3.LAYERS, v3.RANK
# The patches leave out four pixels at the right and below, as those of 14 pixels eight of 512.
IMAGE, PATCH, DEPTH, HEAD = 60, 14, 2, 16
GRID = IMAGE // PATCH
# 2.6667 of the width, rounded down, as 2730 of 1024: no multiple of anything.
GATED = int(HIDDEN * 2.6667)
TASK, INSTRUCTION = "retrieval.query", v3.INSTRUCTIONS["retrieval.query"]
DIMS = (32, 48, HIDDEN)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CODE = "jinaai/jina-clip-implementation--"
# The text tower is that of jina-embeddings-v3 with other values of these; the last four are those of the real model.
TEXT_OVERRIDES: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "rotary_emb_base": 700.0,
    "lora_rank": RANK,
    "load_trained_adapters": False,
    "lora_adaptations": [TASK],
    "lora_alpha": RANK,
    "lora_dropout_p": 0.0,
    "lora_main_params_trainable": False,
    "task_instructions": {TASK: INSTRUCTION},
    "use_flash_attn": True,
    "use_reentrant": False,
}
VISION: dict[str, Any] = {
    "embed_dim": HIDDEN,
    "fused_layer_norm": False,
    "head_width": HEAD,
    "image_size": IMAGE,
    "intp_freq": True,
    "layers": DEPTH,
    "ls_init_value": None,
    "mlp_ratio": 2.6667,
    "model_type": "jina_clip_vision",
    "naive_swiglu": True,
    "patch_dropout": 0.1,
    "patch_size": PATCH,
    "post_norm": False,
    "proj_type": None,
    "pt_hw_seq_len": 3,
    "qkv_bias": True,
    "rope_embeddings": True,
    "subln": True,
    "width": HIDDEN,
    "x_attention": True,
}
PREPROCESSOR: dict[str, Any] = {
    "auto_map": {
        "AutoImageProcessor": f"{CODE}processing_clip.JinaCLIPImageProcessor",
        "AutoProcessor": f"{CODE}processing_clip.JinaCLIPProcessor",
    },
    "fill_color": 0,
    "image_processor_type": "JinaCLIPImageProcessor",
    "interpolation": "bicubic",
    "mean": list(MEAN),
    "processor_class": "JinaCLIPProcessor",
    "resize_mode": "shortest",
    "size": IMAGE,
    "std": list(STD),
}
MODULES = [
    {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer", "kwargs": ["task"]},
    {"idx": 1, "name": "normalizer", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def config(vocabulary: int) -> dict[str, Any]:
    """Content of config.json."""
    return {
        "add_projections": False,
        "architectures": ["JinaCLIPModel"],
        "auto_map": {
            "AutoConfig": f"{CODE}configuration_clip.JinaCLIPConfig",
            "AutoModel": f"{CODE}modeling_clip.JinaCLIPModel",
        },
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "matryoshka_dimensions": list(DIMS),
        "model_type": "jina_clip",
        "projection_dim": HIDDEN,
        "text_config": {
            "default_instruction_task": None,
            "default_lora_task": TASK,
            "embed_dim": HIDDEN,
            "hf_model_config_kwargs": {**TEXT_OVERRIDES, "vocab_size": vocabulary},
            "hf_model_name_or_path": "jinaai/jina-embeddings-v3",
            "model_type": "jina_clip_text",
            "pooler_type": "mean_pooler",
            "proj_bias": False,
            "proj_type": None,
        },
        "torch_dtype": "bfloat16",
        "transformers.js_config": {"use_external_data_format": {"model.onnx": True}},
        "truncate_dim": None,
        "use_text_flash_attn": None,
        "use_vision_xformers": None,
        "vision_config": VISION,
    }


def make_jina_clip(folder: Path, *, seed: int = 11) -> Path:
    """Write a checkpoint."""
    folder.mkdir(parents=True)
    tokenizer = make_unigram()
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab_size()
    write_safetensors(folder / "model.safetensors", make_tensors(vocabulary, seed), {"format": "pt"})
    special = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    files: dict[str, object] = {
        "config.json": config(vocabulary),
        "preprocessor_config.json": PREPROCESSOR,
        "modules.json": MODULES,
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "3.1.0", "transformers": "4.41.2", "pytorch": "2.3.1+cu121"},
            "prompts": {TASK: INSTRUCTION},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "tokenizer_config.json": {
            **special,
            "pad_token": "<pad>",
            "mask_token": "<mask>",
            "clean_up_tokenization_spaces": True,
            "model_max_length": 2050,
            "tokenizer_class": "XLMRobertaTokenizer",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA toy.\n")
    return folder


def make_tensors(vocabulary: int, seed: int) -> Arrays:
    """All tensors: F16, and the factor of the similarities in F32."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.2, mean: float = 0.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale + mean).astype(np.float16)

    text = v3.make_tensors(vocabulary, seed)
    tensors: Arrays = {
        # The adapter of one task; there is no pooler.
        f"text_model.transformer.{name}": (values[:1] if ".lora_" in name else values).astype(np.float16)
        for name, values in text.items()
        if ".pooler." not in name
    }
    tensors["logit_scale"] = np.array(2.6592, np.float32)
    tensors |= {
        "vision_model.cls_token": normal(1, 1, HIDDEN),
        "vision_model.pos_embed": normal(1, GRID**2 + 1, HIDDEN),
        "vision_model.patch_embed.proj.weight": normal(HIDDEN, 3, PATCH, PATCH, scale=0.05),
        "vision_model.patch_embed.proj.bias": normal(HIDDEN),
    }
    norms = {"norm": HIDDEN}
    for index in range(DEPTH):
        block = f"blocks.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "proj"):
            tensors[f"vision_model.{block}.attn.{name}.weight"] = normal(HIDDEN, HIDDEN)
        for name in ("q_bias", "v_bias", "proj.bias"):
            tensors[f"vision_model.{block}.attn.{name}"] = normal(HIDDEN)
        for name, rows, columns in (("w1", GATED, HIDDEN), ("w2", GATED, HIDDEN), ("w3", HIDDEN, GATED)):
            tensors[f"vision_model.{block}.mlp.{name}.weight"] = normal(rows, columns)
            tensors[f"vision_model.{block}.mlp.{name}.bias"] = normal(rows)
        norms |= {f"{block}.{name}": HIDDEN for name in ("norm1", "norm2", "attn.inner_attn_ln")}
        norms[f"{block}.mlp.ffn_ln"] = GATED
    for norm, size in norms.items():
        tensors[f"vision_model.{norm}.weight"] = normal(size, scale=0.1, mean=1.0)
        tensors[f"vision_model.{norm}.bias"] = normal(size, scale=0.1)
    return tensors
