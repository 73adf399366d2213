"""Configuration that the families of causal decoders share; no family of its own."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from embedpack_export.families.model import Model
from embedpack_export.graph.towers.decoder import DecoderShape, Windows, causal_decoder
from embedpack_export.graph.towers.rope_scaling import RopeScaling
from embedpack_export.sources.checkpoint import Size, first_token_id
from embedpack_export.sources.config_keys import DECODERS, sizes
from embedpack_export.sources.key_rules import Followed
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.tokenizer_class import NO_CLASS, FamilyTokenizer

RULES = NameRules(
    prefixes=("transformer.", "model."),  # "transformer." in models for question answering
    renames={},
    unused=re.compile(r"^lm_head\.|rotary_emb\.inv_freq$"),
)
KEYS = {
    **DECODERS,
    **sizes("num_key_value_heads head_dim"),
    "rms_norm_eps": Followed("epsilon of the norms"),
}


class DecoderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; families add theirs, and replace defaults."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    intermediate_size: Size
    max_position_embeddings: Size
    head_dim: Size | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: Annotated[float, msgspec.Meta(gt=1, le=1e12)] = 10_000.0
    rope_scaling: RopeScaling | None = None
    pad_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    matryoshka_dims: tuple[int, ...] = ()

    def shape(self, *, biases: bool = False, qk_norm: bool = False, windows: Windows = ()) -> DecoderShape:
        """Shape of the tower; see `DecoderShape` for the arguments."""
        return DecoderShape(
            vocabulary=self.vocab_size,
            hidden=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads or self.num_attention_heads,
            head_size=self.head_dim or self.hidden_size // self.num_attention_heads,
            intermediate=self.intermediate_size,
            epsilon=self.rms_norm_eps,
            rope_theta=self.rope_theta,
            rope_scaling=self.rope_scaling,
            biases=biases,
            qk_norm=qk_norm,
            windows=windows,
        )

    def model(self, shape: DecoderShape, tokenizer: FamilyTokenizer = NO_CLASS) -> Model:
        """The model with a tower of this shape."""
        return Model(
            hidden=self.hidden_size,
            max_tokens=self.max_position_embeddings,
            pad_token_id=self.pad_token_id,
            eos_token_id=first_token_id(self.eos_token_id),
            vocabulary=self.vocab_size,
            truncate_dims=self.matryoshka_dims,
            rules=RULES,
            text=causal_decoder(shape),
            tokenizer=tokenizer,
            scaled_tokens=None if self.rope_scaling is None else self.rope_scaling.tokens(self.max_position_embeddings),
        )
