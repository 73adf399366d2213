"""ModernBERT: pre-norm layers, most of them with attention to near tokens alone (modernbert-embed, gte-modernbert)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.families._encoder import EncoderConfig, Theta
from embedpack_export.families.heads import ScoreHead
from embedpack_export.families.model import Family, Model, ScoreModel, by_model_type
from embedpack_export.graph.towers.encoder_shape import Biases, EncoderNames, RotaryPositions
from embedpack_export.graph.towers.rotary import RotaryTable
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, ENCODERS, sizes
from embedpack_export.sources.head_layers import Dense, LayerNorm
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, Only, no_effect
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.rope_config import is_default_rope
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

LayerType: TypeAlias = Literal["full_attention", "sliding_attention"]
# Field of older files with the base of the rotary positions of each kind of layers, and its default.
THETAS: Mapping[LayerType, str] = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}


class RopeOfLayers(msgspec.Struct, frozen=True):
    """Rotary positions of one kind of layers."""

    rope_theta: Theta | None = None


class ModernBertConfig(EncoderConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    hidden_activation: Literal["gelu", "gelu_new", "gelu_pytorch_tanh"] = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: Size = 128
    layer_types: tuple[LayerType, ...] | None = None
    global_attn_every_n_layers: Size = 3
    global_rope_theta: Theta = 160_000.0
    local_rope_theta: Theta = 10_000.0
    rope_parameters: Mapping[LayerType, RopeOfLayers] = {}
    pad_token_id: int | None = 50283
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_bias: bool = False

    def layers(self) -> tuple[LayerType, ...]:
        """Kind of each layer."""
        if self.layer_types is not None:
            return self.layer_types
        every = self.global_attn_every_n_layers
        return tuple(
            "sliding_attention" if index % every else "full_attention" for index in range(self.num_hidden_layers)
        )

    def table(self, kind: LayerType) -> RotaryTable:
        """Rotary positions of a kind of layers."""
        older = self.global_rope_theta if kind == "full_attention" else self.local_rope_theta
        stated = self.rope_parameters.get(kind, RopeOfLayers()).rope_theta
        return RotaryTable(self.head_size, older if stated is None else stated)


def rope_of_layers_problem(value: Any) -> str | None:
    """Reason to refuse a `rope_parameters`."""
    kinds = {} if value is None else value
    if isinstance(kinds, dict) and set(kinds) <= set(THETAS) and all(map(is_default_rope, kinds.values())):
        return None
    return f"supported: for {' and '.join(THETAS)} an object with rope_theta and a rope_type of default"


KEYS = KeyTable(
    "config.json (modernbert)",
    {
        **ENCODERS,
        **sizes(""),
        **no_effect("of another class; positions are rotary", ("position_embedding_type",)),
        "hidden_activation": Only(("gelu", "gelu_new", "gelu_pytorch_tanh"), ANOTHER_CHECKPOINT),
        "norm_eps": Followed("epsilon of the layer norms"),
        "norm_bias": Followed("biases of the layer norms"),
        "attention_bias": Followed("biases of q, k, v and the output of attention"),
        "mlp_bias": Followed("biases of the feed-forward networks"),
        "local_attention": Followed("tokens that a token of a local layer attends to, but itself"),
        "layer_types": Followed("layers with attention to all tokens, and to near ones"),
        "global_attn_every_n_layers": Followed("layers with attention to all tokens, where there are no layer_types"),
        "global_rope_theta": Followed("base of the rotary positions of layers with attention to all tokens"),
        "local_rope_theta": Followed("base of the rotary positions of layers with attention to near tokens"),
        "rope_parameters": Checked("both bases, and a rope_type of default", rope_of_layers_problem),
        "rope_scaling": Only((None,), ANOTHER_CHECKPOINT),
        **no_effect("of another class; norm_eps is the epsilon of the norms", ("layer_norm_eps",)),
        **no_effect("used in training alone", ("mlp_dropout", "initializer_cutoff_factor")),
        "classifier_pooling": Followed("pooling of scores"),
        "classifier_bias": Followed("bias of the first layer of the head of scores"),
        "classifier_activation": Only(("gelu",), ANOTHER_CHECKPOINT),
        **no_effect(
            "of heads that are not exported",
            ("decoder_bias", "sparse_prediction", "sparse_pred_ignore_index", "repad_logits_with_grad"),
        ),
        **no_effect("of how the model is run", ("reference_compile", "deterministic_flash_attn")),
    },
)  # fmt: skip
NAMES = EncoderNames(
    words="embeddings.tok_embeddings",
    embedding_norm="embeddings.norm",
    layer="layers.{}",
    query="attn.query",
    key="attn.key",
    value="attn.value",
    mixed="attn.Wo",
    attention_norm="attn_norm",
    gate="mlp.gate",
    inner="mlp.up",
    outer="mlp.Wo",
    output_norm="mlp_norm",
    final_norm="final_norm",
)
RULES = NameRules(
    prefixes=("model.",),
    renames={},
    unused=re.compile(r"^(head|decoder|classifier)\.|rotary_emb\..*inv_freq$"),
    fused={".attn.Wqkv": (".attn.query", ".attn.key", ".attn.value"), ".mlp.Wi": (".mlp.gate", ".mlp.up")},
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a ModernBERT checkpoint."""
    config = parse_config(checkpoint, ModernBertConfig, KEYS)
    layers, near = config.layers(), config.local_attention // 2
    if len(layers) != config.num_hidden_layers:
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: layer_types has {len(layers)} entries, num_hidden_layers is "
            f"{config.num_hidden_layers}; restore the config.json of the model"
        )
    shape = replace(
        config.plain_shape(config.norm_eps, RotaryPositions(tuple(map(config.table, layers)))),
        activation=config.hidden_activation,
        order="pre-norm",
        norm="layer" if config.norm_bias else "layer without bias",
        biases=Biases(config.attention_bias, config.attention_bias, config.mlp_bias, config.mlp_bias),
        names=NAMES,
        windows=tuple(near if kind == "sliding_attention" else None for kind in layers),
    )
    return config.model(shape, RULES, FamilyTokenizer(fixed=True))


def read_scores(checkpoint: Checkpoint) -> ScoreModel:
    """Head of ModernBertForSequenceClassification."""
    config = parse_config(checkpoint, ModernBertConfig, KEYS)
    hidden = config.hidden_size
    layers = (
        Dense("head.dense", hidden, hidden, bias=config.classifier_bias, activation="gelu"),
        LayerNorm("head.norm", hidden, config.norm_eps, bias=config.norm_bias),
        Dense("classifier", hidden, 1, bias=True),
    )
    return ScoreModel(ScoreHead(config.classifier_pooling, layers))


FAMILY = Family("modernbert", by_model_type("modernbert"), read, (KEYS,), read_scores=read_scores)
