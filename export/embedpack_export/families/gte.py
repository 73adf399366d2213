"""GTE: post-norm layers with rotary positions and GeGLU (gte-multilingual-base, gte-base-en-v1.5, arctic-embed-m-v2).

Checkpoints have the names of transformers' class, or those of the code that it was made of, whose model type is "new".
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

from embedpack.errors import CheckpointError
from embedpack_export.families._encoder import ROTARY_NAMES, RotaryConfig, Theta, pooler_and_classifier
from embedpack_export.families.model import Family, Model, ScoreModel
from embedpack_export.graph.towers.encoder_shape import Biases
from embedpack_export.sources.checkpoint import Checkpoint, parse_object
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, ENCODERS, ROTARY, code_of, sizes
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, Only, check_keys, no_effect
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.rope_config import ROPE_TYPES, rope_problem
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

# Model type of the code before transformers had the class.
OLDER = "new"
MAX_FACTOR = 1000


class GteConfig(RotaryConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh"] = "gelu"
    pad_token_id: int | None = 1
    rope_theta: Theta = 160_000.0


def rope_scaling_problem(value: Any) -> str | None:
    """Reason to refuse a `rope_scaling`."""
    if not isinstance(value, dict) or value.get("type") != "ntk":
        return rope_problem(value)
    if (
        set(value) == {"type", "factor"}
        and isinstance(value["factor"], int | float)
        and 1 < value["factor"] <= MAX_FACTOR
    ):
        return None
    return f"supported: a type of ntk with a factor above 1 up to {MAX_FACTOR} and no other key; {ANOTHER_CHECKPOINT}"


KEYS = KeyTable(
    "config.json (gte)",
    {
        **ENCODERS,
        **ROTARY,
        **sizes("type_vocab_size"),
        "hidden_act": Only(("gelu", "gelu_new", "gelu_pytorch_tanh"), ANOTHER_CHECKPOINT),
        "layer_norm_eps": Followed("epsilon of the layer norms"),
        "layer_norm_type": Only(("layer_norm", None), ANOTHER_CHECKPOINT),
        "position_embedding_type": Only(("rope", None), ANOTHER_CHECKPOINT),
        "rope_scaling": Checked(f"null, a type of ntk, or a rope_type: {', '.join(ROPE_TYPES)}", rope_scaling_problem),
        "logn_attention_scale": Only((False, None), ANOTHER_CHECKPOINT),
        "logn_attention_clip1": Only((False, None), ANOTHER_CHECKPOINT),
        "auto_map": code_of("NewConfig", "NewModel", "GteConfig", "GteModel"),
        **no_effect("form of the tensors, which their names show", ("pack_qkv",)),
        **no_effect("of how the model is run", ("unpad_inputs", "use_memory_efficient_attention")),
    },
)
RULES = NameRules(
    prefixes=("new.", "gte."),
    renames={
        "encoder.layer.": "layers.",
        ".attention.": ".self_attn.",
        ".attn_ln": ".post_attention_layernorm",
        ".mlp_ln": ".post_mlp_layernorm",
    },
    unused=re.compile(r"^(pooler|lm_head|classifier)\.|rotary_emb\.inv_freq$"),
    fused={
        ".self_attn.qkv_proj": (".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"),
        ".mlp.up_gate_proj": (".mlp.up_proj", ".mlp.gate_proj"),
    },
)


def claims(checkpoint: Checkpoint) -> bool:
    """True for both model types."""
    return checkpoint.config.get("model_type") in (OLDER, "gte")


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a GTE checkpoint."""
    content = newer_spelling(checkpoint)
    config = parse_object(checkpoint, content, GteConfig, KEYS)
    shape = replace(
        config.plain_shape(config.layer_norm_eps, config.rotary()),
        activation=config.hidden_act,
        token_types=config.type_vocab_size,
        biases=Biases(inner=False),
        names=ROTARY_NAMES,
    )
    model = config.model(shape, RULES, FamilyTokenizer("XLMRobertaTokenizer"))
    return model if content == checkpoint.config else replace(model, config_of_class=content)


def read_scores(checkpoint: Checkpoint) -> ScoreModel:
    """Head of GteForSequenceClassification; published rerankers of this family have one token type."""
    config = parse_object(checkpoint, newer_spelling(checkpoint), GteConfig, KEYS)
    return ScoreModel(pooler_and_classifier(config.hidden_size))


def newer_spelling(checkpoint: Checkpoint) -> dict[str, Any]:
    """The configuration as one of transformers' class, also where it is of the older code.

    A type of ntk (kexue.fm/archives/9706, eq. 6) has the frequencies of the base times the factor, divided by
    factor^(2 / head_size): linear scaling of another base.

    Raises:
        CheckpointError: a key is unknown, or a value is missing or not supported.
    """
    path = checkpoint.folder / "config.json"
    check_keys(path, checkpoint.config, KEYS)
    if checkpoint.config["model_type"] == OLDER and "rope_theta" not in checkpoint.config:
        raise CheckpointError(f"{path}: rope_theta is missing; restore the config.json of the model")
    config = {key: value for key, value in checkpoint.config.items() if key != "auto_map"} | {"model_type": "gte"}
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, dict) or scaling.get("type") != "ntk":
        return config
    factor, plain = scaling["factor"], parse_object(checkpoint, {**config, "rope_scaling": None}, GteConfig, KEYS)
    linear = {"rope_type": "linear", "factor": factor ** (2 / plain.head_size)}
    return {**config, "rope_theta": plain.rope_theta * factor, "rope_scaling": linear}


FAMILY = Family("gte", claims, read, (KEYS,), read_scores=read_scores)
