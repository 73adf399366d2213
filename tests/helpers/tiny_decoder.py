"""Tiny decoders in the real layout: random weights from a seed, a byte-level tokenizer; numpy only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.tiny_families import FAMILIES

Spelling = Literal["model", "bare"]
# Head sizes of families that do not divide the hidden size by the heads where config.json has none.
HEAD_DIM: Mapping[str, int] = {"qwen3": 128}


def make_tokenizer(model_type: str) -> Tokenizer:
    """Bytes and a few pairs of them; a text ends with the family's special token."""
    family = FAMILIES[model_type]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("t", "h"), ("th", "e"), ("Ġ", "a"), ("i", "n"), ("o", "n")]
    tokens = [*family.specials, *alphabet, *("".join(pair) for pair in pairs)]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {family.end}", special_tokens=[(family.end, ids[family.end])]
    )
    tokenizer.add_special_tokens(list(family.specials))
    return tokenizer


def make_tensors(config: Mapping[str, Any], seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """All tensors of a causal language model but its head, float32."""
    rng = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    size = config["head_dim"] or HEAD_DIM.get(config["model_type"], hidden // config["num_attention_heads"])
    query, value = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    linears = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (value, hidden),
        "self_attn.v_proj": (value, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }

    def normal(*shape: int, scale: float, mean: float = 0.0) -> npt.NDArray[np.float32]:
        return (rng.standard_normal(shape) * scale + mean).astype(np.float32)

    tensors = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden, scale=0.5)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, shape in linears.items():
            tensors[f"{prefix}.{name}.weight"] = normal(*shape, scale=0.15)
            if config["model_type"] == "qwen2" and name.endswith(("q_proj", "k_proj", "v_proj")):
                tensors[f"{prefix}.{name}.bias"] = normal(shape[0], scale=0.3)
        if config["model_type"] == "qwen3":
            for norm in ("self_attn.q_norm", "self_attn.k_norm"):
                tensors[f"{prefix}.{norm}.weight"] = normal(size, scale=0.3, mean=1.0)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{norm}.weight"] = normal(hidden, scale=0.2, mean=1.0)
    tensors["model.norm.weight"] = normal(hidden, scale=0.2, mean=1.0)
    return tensors


def make_decoder(
    folder: Path,
    model_type: str = "qwen2",
    *,
    seed: int = 7,
    spelling: Spelling = "model",
    head: bool = False,
    **changes: object,
) -> Path:
    """Write a checkpoint; `changes` replace values of config.json, None takes one out."""
    folder.mkdir(parents=True, exist_ok=True)
    base, tokenizer = FAMILIES[model_type].config, make_tokenizer(model_type)
    changed = {**base, "vocab_size": tokenizer.get_vocab_size() + 3, **changes}
    config = {name: value for name, value in changed.items() if value is not None}
    tensors = make_tensors({**base, **config, "head_dim": config.get("head_dim")}, seed)
    if head:
        tensors["lm_head.weight"] = np.zeros((config["vocab_size"], config["hidden_size"]), np.float32)
    if spelling == "bare":
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder
