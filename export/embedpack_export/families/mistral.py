"""Mistral: Llama's decoder with a sliding window of attention (e5-mistral, Linq-Embed, SFR-Embedding)."""

from __future__ import annotations

import msgspec

from embedpack_export.families import Family, Model
from embedpack_export.families.llama import RULES
from embedpack_export.graph.towers.decoder import DecoderShape, causal_decoder
from embedpack_export.sources.checkpoint import Checkpoint, Size, first_token_id, parse_config
from embedpack_export.sources.config_keys import DECODERS, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable
from embedpack_export.sources.tokenizer_class import FamilyTokenizer


class MistralConfig(msgspec.Struct, frozen=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size
    num_key_value_heads: Size = 8
    head_dim: Size | None = None
    sliding_window: Size | None = 4096
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    pad_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    matryoshka_dims: tuple[int, ...] = ()


KEYS = KeyTable(
    "config.json (mistral)",
    {
        **DECODERS,
        **sizes("num_key_value_heads head_dim"),
        "rms_norm_eps": Followed("epsilon of the norms"),
        "sliding_window": Followed("number of last tokens that a token attends to"),
    },
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a Mistral checkpoint."""
    config = parse_config(checkpoint, MistralConfig, KEYS)
    shape = DecoderShape(
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.head_dim or config.hidden_size // config.num_attention_heads,
        intermediate=config.intermediate_size,
        epsilon=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        biases=False,
        window=config.sliding_window,
    )
    return Model(
        dimensions=config.hidden_size,
        max_tokens=config.max_position_embeddings,
        pad_token_id=config.pad_token_id,
        eos_token_id=first_token_id(config.eos_token_id),
        vocabulary=config.vocab_size,
        truncate_dims=config.matryoshka_dims,
        rules=RULES,
        text=causal_decoder(shape),
        tokenizer=FamilyTokenizer(fixed=True),
    )


FAMILY = Family(read, (KEYS,))
