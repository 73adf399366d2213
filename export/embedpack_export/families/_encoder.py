"""Configuration that the families of encoders share; no family of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import msgspec

from embedpack_export.families.heads import ScoreHead
from embedpack_export.families.model import Model, ScoreModel
from embedpack_export.graph.towers.encoder import bidirectional_encoder
from embedpack_export.graph.towers.encoder_shape import EncoderNames, EncoderShape, LearnedPositions, RotaryPositions
from embedpack_export.graph.towers.relative_bias import RelativeBias
from embedpack_export.graph.towers.rope_scaling import RopeScaling
from embedpack_export.graph.towers.rotary import RotaryTable
from embedpack_export.sources.checkpoint import Size
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

ActivationName = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
# Base of rotary positions.
Theta = Annotated[float, msgspec.Meta(gt=1, le=1e12)]
BERT_NAMES = EncoderNames()
# Names of modules in transformers' classes of post-norm encoders with rotary positions.
ROTARY_NAMES = EncoderNames(
    layer="layers.{}",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    mixed="self_attn.o_proj",
    attention_norm="post_attention_layernorm",
    gate="mlp.gate_proj",
    inner="mlp.up_proj",
    outer="mlp.down_proj",
    output_norm="post_mlp_layernorm",
)


def pooler_and_classifier(hidden: int) -> ScoreHead:
    """Head of BERT's class: the pooled first token, and one label."""
    pooler = Dense("pooler.dense", hidden, hidden, bias=True, activation="tanh")
    return ScoreHead("cls", (pooler, Dense("classifier", hidden, 1, bias=True)))


def scores_of(head: ScoreHead, shape: EncoderShape) -> ScoreModel:
    """Scores of an encoder, with token types if it has several."""
    typed = bidirectional_encoder(replace(shape, reads_token_types=True)) if shape.token_types > 1 else None
    return ScoreModel(head, typed)


class EncoderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; families add theirs, and replace defaults."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size
    pad_token_id: int | None = 0
    matryoshka_dims: tuple[int, ...] = ()

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.num_attention_heads

    def plain_shape(self, epsilon: float, positions: LearnedPositions | RotaryPositions) -> EncoderShape:
        """Shape of a tower of these sizes, with the options of BERT."""
        return EncoderShape(
            vocabulary=self.vocab_size,
            hidden=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            intermediate=self.intermediate_size,
            epsilon=epsilon,
            max_tokens=self.max_position_embeddings,
            positions=positions,
        )

    def model(self, shape: EncoderShape, rules: NameRules, tokenizer: FamilyTokenizer) -> Model:
        """The model with a tower of this shape."""
        return Model(
            hidden=self.hidden_size,
            max_tokens=shape.max_tokens,
            pad_token_id=self.pad_token_id,
            vocabulary=self.vocab_size,
            truncate_dims=self.matryoshka_dims,
            rules=rules,
            text=bidirectional_encoder(shape),
            tokenizer=tokenizer,
        )


class PostNormConfig(EncoderConfig, frozen=True, kw_only=True):
    """Configuration of BERT and its kin: learned positions, norms after each part of a layer."""

    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-12
    hidden_act: ActivationName = "gelu"

    def shape(
        self, *, first: int = 0, names: EncoderNames = BERT_NAMES, relative: RelativeBias | None = None
    ) -> EncoderShape:
        """Shape of the tower; `first` is the row of the first token in the position table."""
        rows = self.max_position_embeddings
        return replace(
            self.plain_shape(self.layer_norm_eps, LearnedPositions(rows, first)),
            max_tokens=rows - first,
            activation=self.hidden_act,
            token_types=self.type_vocab_size,
            names=names,
            relative=relative,
        )


class RotaryConfig(EncoderConfig, frozen=True, kw_only=True):
    """Configuration of encoders with rotary positions, the same in all layers."""

    rope_theta: Theta = 10_000.0
    rope_scaling: RopeScaling | None = None

    def rotary(self) -> RotaryPositions:
        """Positions of all layers."""
        table = RotaryTable(self.head_size, self.rope_theta, scaling=self.rope_scaling)
        return RotaryPositions((table,) * self.num_hidden_layers)
