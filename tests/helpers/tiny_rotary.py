"""Random tensors of tiny encoders with rotary positions, under the names of transformers' classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[np.float32]]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """Names of a family's tensors, and the linear layers that have a bias."""

    words: str
    norms: tuple[str, ...]  # norms outside of layers
    layer_norms: tuple[str, ...]
    linears: tuple[str, ...]
    biased: list[str]
    norm_biases: bool


PROJECTIONS = tuple(f"self_attn.{name}_proj" for name in "qkvo")
GATED = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def layout(config: Config) -> Layout:
    """Layout of the family and the options in config.json."""
    kind = config["model_type"]
    if kind == "modernbert":
        attention, inner = ("attn.Wqkv", "attn.Wo"), ("mlp.Wi", "mlp.Wo")
        biased = [*(attention if config["attention_bias"] else ()), *(inner if config["mlp_bias"] else ())]
        norms, outside = ("attn_norm", "mlp_norm"), ("embeddings.norm", "final_norm")
        return Layout("embeddings.tok_embeddings", outside, norms, attention + inner, biased, config["norm_bias"])
    if kind == "eurobert":
        biased = [*(PROJECTIONS if config["attention_bias"] else ()), *(GATED if config["mlp_bias"] else ())]
        norms = ("input_layernorm", "post_attention_layernorm")
        return Layout("embed_tokens", ("norm",), norms, PROJECTIONS + GATED, biased, False)
    norms = ("post_attention_layernorm", "post_mlp_layernorm")
    biased = [*PROJECTIONS, "mlp.down_proj"] if kind == "gte" else []
    return Layout("embeddings.word_embeddings", ("embeddings.LayerNorm",), norms, PROJECTIONS + GATED, biased, True)


def linear_shape(config: Config, name: str) -> tuple[int, int]:
    """Outputs and inputs of a linear layer."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    shared = hidden // heads * (config.get("num_key_value_heads") or heads)
    shapes = {
        "attn.Wqkv": (3 * hidden, hidden), "mlp.Wi": (2 * inner, hidden), "mlp.Wo": (hidden, inner),
        "self_attn.k_proj": (shared, hidden), "self_attn.v_proj": (shared, hidden),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
    }  # fmt: skip
    return shapes.get(name, (hidden, hidden))


def rotary_tensors(config: Config, seed: int) -> Tensors:
    """All tensors of an encoder, float32."""
    rng, names, hidden = np.random.default_rng(seed), layout(config), config["hidden_size"]

    def normal(*shape: int, scale: float = 0.2, mean: float = 0.0) -> npt.NDArray[np.float32]:
        return (rng.standard_normal(shape) * scale + mean).astype(np.float32)

    tensors = {f"{names.words}.weight": normal(config["vocab_size"], hidden)}
    if config.get("type_vocab_size"):
        tensors["embeddings.token_type_embeddings.weight"] = normal(config["type_vocab_size"], hidden)
    norms = [*names.norms]
    for layer in range(config["num_hidden_layers"]):
        for name in names.linears:
            shape = linear_shape(config, name)
            tensors[f"layers.{layer}.{name}.weight"] = normal(*shape)
            if name in names.biased:
                tensors[f"layers.{layer}.{name}.bias"] = normal(shape[0])
        # The first layer of ModernBERT reads the norm of the embeddings.
        norms += [f"layers.{layer}.{norm}" for norm in names.layer_norms if (layer, norm) != (0, "attn_norm")]
    for norm in norms:
        tensors[f"{norm}.weight"] = normal(hidden, scale=0.1, mean=1.0)
        if names.norm_biases:
            tensors[f"{norm}.bias"] = normal(hidden, scale=0.1)
    return tensors
