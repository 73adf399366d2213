"""jina-reranker-m0 in the layout of Qwen2-VL at toy size: files, keys of config.json, names of tensors, tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.exports import Arrays
from tests.helpers.tiny_decoder import make_tensors
from tests.helpers.tiny_jina_listwise import make_tokenizer

HIDDEN, DEPTH, EMBED, RATIO, PATCH, FRAMES, MERGE = 64, 2, 32, 2, 14, 2, 2
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
CONFIG: dict[str, Any] = {
    "architectures": ["JinaVLForRanking"],
    "auto_map": {"AutoModel": "modeling.JinaVLForRanking"},
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 32768,
    "max_window_layers": 2,
    "model_type": "qwen2_vl",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.47.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": DEPTH,
        "embed_dim": EMBED,
        "hidden_act": "quick_gelu",
        "hidden_size": HIDDEN,
        "in_chans": 3,
        "in_channels": 3,
        "mlp_ratio": RATIO,
        "model_type": "qwen2_vl",
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "spatial_patch_size": PATCH,
        "temporal_patch_size": FRAMES,
    },
}
IMAGES: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "max_pixels": 602112,
    "merge_size": MERGE,
    "min_pixels": 3136,
    "patch_size": PATCH,
    "processor_class": "Qwen2VLProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"max_pixels": 602112, "min_pixels": 3136},
    "temporal_patch_size": FRAMES,
}


def literal(query: str, document: str) -> str:
    """Text of a pair as the published code writes it."""
    return f"**Document**:\n{document}\n**Query**:\n{query}"


def make_m0(folder: Path, *, seed: int = 7, head: bool = True) -> Path:
    """Write a checkpoint; `head`: with the table of the language model's head, which nothing uses."""
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(literal("the cat", "sleeps on"), SPECIAL, ())
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    config = {
        **CONFIG,
        "vocab_size": tokenizer.get_vocab_size() + 3,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_token_id": ids["<|vision_pad|>"],
    }
    tensors = make_tensors({**config, "model_type": "qwen2", "head_dim": None}, seed) | other_tensors(seed)
    if head:
        tensors["lm_head.weight"] = np.zeros((config["vocab_size"], HIDDEN), np.float32)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): {"content": token, **flags} for token, number in ids.items()},
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    files = {"config.json": config, "tokenizer_config.json": settings, "preprocessor_config.json": IMAGES}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA toy.\n")
    return folder


def other_tensors(seed: int) -> Arrays:
    """Tensors of the vision tower and of the head of scores."""
    rng = np.random.default_rng(seed + 1)

    def normal(*shape: int, mean: float = 0.0, scale: float | None = None) -> np.ndarray:
        spread = shape[-1] ** -0.5 if scale is None else scale
        return (rng.standard_normal(shape) * spread + mean).astype(np.float32)

    inner = EMBED * MERGE**2
    shapes = {"visual.merger.mlp.0": (inner, inner), "visual.merger.mlp.2": (HIDDEN, inner)}
    shapes |= {"score.0": (HIDDEN, HIDDEN), "score.2": (1, HIDDEN)}
    norms = ["visual.merger.ln_q"]
    for block in range(DEPTH):
        prefix = f"visual.blocks.{block}"
        shapes |= {f"{prefix}.attn.qkv": (3 * EMBED, EMBED), f"{prefix}.attn.proj": (EMBED, EMBED)}
        shapes |= {f"{prefix}.mlp.fc1": (RATIO * EMBED, EMBED), f"{prefix}.mlp.fc2": (EMBED, RATIO * EMBED)}
        norms += [f"{prefix}.norm1", f"{prefix}.norm2"]
    tensors = {"visual.patch_embed.proj.weight": normal(EMBED, 3, FRAMES, PATCH, PATCH, scale=0.03)}
    for name, shape in shapes.items():
        tensors |= {f"{name}.weight": normal(*shape), f"{name}.bias": normal(shape[0], scale=0.2)}
    for name in norms:
        tensors |= {f"{name}.weight": normal(EMBED, mean=1.0, scale=0.1), f"{name}.bias": normal(EMBED, scale=0.1)}
    # Around the bias of the scores, so that they are far from 0 and 1.
    tensors["score.2.bias"] += np.float32(2.65)
    return tensors
