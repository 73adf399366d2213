"""NomicBERT: post-norm layers without biases, rotary positions, SwiGLU (nomic-embed-text-v1 and v1.5).

config.json has the keys of transformers' class, those of the code that it was made of, or both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from embedpack.errors import CheckpointError
from embedpack_export.families._encoder import ROTARY_NAMES, RotaryConfig, Theta
from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.graph.towers.encoder_shape import Biases
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_object
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, ENCODERS, ROTARY, code_of, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable, Only, no_effect, shown
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

# Keys of the older code by those of transformers' class.
OLDER: Mapping[str, str] = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
}


class NomicBertConfig(RotaryConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["silu"] = "silu"
    head_dim: Size | None = None
    rope_theta: Theta = 1000.0


KEYS = KeyTable(
    "config.json (nomic_bert)",
    {
        **ENCODERS,
        **ROTARY,
        **sizes("type_vocab_size head_dim n_positions"),
        **{key: Followed("older spelling of a key") for key in OLDER.values()},
        "layer_norm_eps": Followed("epsilon of the layer norms"),
        "hidden_act": Only(("silu",), ANOTHER_CHECKPOINT),
        "activation_function": Only(("swiglu",), ANOTHER_CHECKPOINT),
        "auto_map": code_of("NomicBertConfig", "NomicBertModel"),
        **dict.fromkeys(
            ("causal", "prenorm", "parallel_block", "parallel_block_tied_norm", "use_rms_norm", "qkv_proj_bias",
             "mlp_fc1_bias", "mlp_fc2_bias", "rotary_emb_interleaved", "scale_attn_by_inverse_layer_idx"),
            Only((False, None), ANOTHER_CHECKPOINT),
        ),
        "rotary_emb_fraction": Only((1, None), ANOTHER_CHECKPOINT),
        "rotary_emb_scale_base": Only((None,), ANOTHER_CHECKPOINT),
        "rotary_scaling_factor": Only((None,), "positions beyond the trained ones are not scaled; remove it"),
        "scale_attn_weights": Only((True, None), ANOTHER_CHECKPOINT),
        **no_effect(
            "of how the model is run",
            ("dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln", "use_flash_attn", "use_xentropy",
             "last_layer_subset", "reorder_and_upcast_attn"),
        ),
        **no_effect("a record of how the model was made", ("max_trained_positions", "pad_vocab_size_multiple")),
        **no_effect("used in training alone", ("mlp_dropout",)),
    },
)  # fmt: skip
RULES = NameRules(
    prefixes=("bert.", "nomic_bert."),
    renames={
        "encoder.layers.": "layers.",
        "emb_ln": "embeddings.LayerNorm",
        ".attn.": ".self_attn.",
        ".self_attn.out_proj": ".self_attn.o_proj",
        ".fc11": ".up_proj",
        ".fc12": ".gate_proj",
        ".fc2": ".down_proj",
        ".norm1": ".post_attention_layernorm",
        ".norm2": ".post_mlp_layernorm",
    },
    unused=re.compile(r"^(pooler|cls|classifier)\.|rotary_emb\.inv_freq$"),
    fused={".self_attn.Wqkv": (".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj")},
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a NomicBERT checkpoint."""
    content = newer_spelling(checkpoint)
    config = parse_object(checkpoint, content, NomicBertConfig, KEYS)
    if config.head_dim not in (None, config.head_size):
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: head_dim is {config.head_dim}; supported: {config.head_size}, "
            "hidden_size / num_attention_heads"
        )
    shape = replace(
        config.plain_shape(config.layer_norm_eps, config.rotary()),
        activation=config.hidden_act,
        token_types=config.type_vocab_size,
        biases=Biases(attention=False, mixed=False, inner=False, outer=False),
        names=ROTARY_NAMES,
    )
    model = config.model(shape, RULES, FamilyTokenizer("BertTokenizer"))
    older = {"auto_map", *OLDER.values()}
    if not older & set(content):
        return model
    return replace(model, config_of_class={key: value for key, value in content.items() if key not in older})


def newer_spelling(checkpoint: Checkpoint) -> dict[str, Any]:
    """The configuration with the keys of transformers' class.

    Raises:
        CheckpointError: both spellings of a key are there, with different values.
    """
    config = dict(checkpoint.config)
    for key, older in OLDER.items():
        value = config.setdefault(key, config.get(older))
        if older in config and config[older] != value:
            raise CheckpointError(
                f"{checkpoint.folder / 'config.json'}: {key} is {shown(value)}, {older} is {shown(config[older])}; "
                "both are the same value: remove the wrong one"
            )
        if config[key] is None:
            del config[key]
    # The older code has positions beyond the trained ones; transformers' class has no limit of its own.
    lengths = [config.get(key) for key in ("max_position_embeddings", "n_positions")]
    longest = max((length for length in lengths if isinstance(length, int)), default=None)
    return config if longest is None else {**config, "max_position_embeddings": longest}


FAMILY = Family("nomic_bert", by_model_type("nomic_bert"), read, (KEYS,))
