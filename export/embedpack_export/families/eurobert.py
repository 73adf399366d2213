"""EuroBERT: a bidirectional encoder with the layers of Llama (EuroBERT-210m and models trained from it)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from embedpack.errors import CheckpointError
from embedpack_export.families._encoder import RotaryConfig
from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.graph.towers.encoder_shape import Biases, EncoderNames
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ENCODERS, ROTARY, code_of, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable, Only, no_effect
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import NO_CLASS


class EuroBertConfig(RotaryConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    rms_norm_eps: float = 1e-5
    hidden_act: Literal["silu"] = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    pad_token_id: int | None = 128001


KEYS = KeyTable(
    "config.json (eurobert)",
    {
        **ENCODERS,
        **ROTARY,
        **sizes("num_key_value_heads head_dim"),
        "rms_norm_eps": Followed("epsilon of the norms"),
        "hidden_act": Only(("silu",), "export a checkpoint without it"),
        "attention_bias": Followed("biases of q, k, v and the output of attention"),
        "mlp_bias": Followed("biases of the feed-forward networks"),
        "auto_map": code_of("EuroBertConfig", "EuroBertModel"),
        **no_effect("of heads that are not exported", ("classifier_pooling", "clf_pooling")),
        **no_effect("names of special tokens, which the tokenizer has", ("*_token",)),
    },
)
NAMES = EncoderNames(
    words="embed_tokens",
    embedding_norm=None,
    layer="layers.{}",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    mixed="self_attn.o_proj",
    attention_norm="input_layernorm",
    gate="mlp.gate_proj",
    inner="mlp.up_proj",
    outer="mlp.down_proj",
    output_norm="post_attention_layernorm",
    final_norm="norm",
)
RULES = NameRules(
    prefixes=("model.",), renames={}, unused=re.compile(r"^(lm_head|dense|classifier)\.|rotary_emb\.inv_freq$")
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a EuroBERT checkpoint."""
    config = parse_config(checkpoint, EuroBertConfig, KEYS)
    if config.head_dim not in (None, config.head_size):
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: head_dim is {config.head_dim}; supported: {config.head_size}, "
            "hidden_size / num_attention_heads"
        )
    attention, inner = config.attention_bias, config.mlp_bias
    shape = replace(
        config.plain_shape(config.rms_norm_eps, config.rotary()),
        activation=config.hidden_act,
        kv_heads=config.num_key_value_heads,
        order="pre-norm",
        norm="rms",
        biases=Biases(attention, attention, inner, inner),
        names=NAMES,
    )
    return config.model(shape, RULES, NO_CLASS)


FAMILY = Family("eurobert", by_model_type("eurobert"), read, (KEYS,))
