"""Families that the tests make tiny checkpoints of: real values of their configurations, at toy size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TowerKind = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class TinyFamily:
    """A family with its configuration and the special tokens of its tokenizer."""

    tower: TowerKind  # encoder: `make_checkpoint` writes it; decoder: `make_decoder`
    config: Mapping[str, Any]  # config.json without the size of the vocabulary
    specials: tuple[str, ...]  # special tokens in the order of their ids
    start: str | None  # special token before a text
    end: str  # special token after a text
    unknown: str | None  # token of unknown words; None: a vocabulary of bytes


# Head size 8: heads that are no multiple of a vector register.
ENCODER_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
FAMILIES: Mapping[str, TinyFamily] = {
    "bert": TinyFamily(
        tower="encoder",
        config={
            **ENCODER_SHAPE,
            "model_type": "bert",
            "architectures": ["BertModel"],
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
            "hidden_act": "gelu",
        },
        specials=("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        start="[CLS]",
        end="[SEP]",
        unknown="[UNK]",
    ),
    "xlm-roberta": TinyFamily(
        tower="encoder",
        config={
            **ENCODER_SHAPE,
            "model_type": "xlm-roberta",
            "architectures": ["XLMRobertaModel"],
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "pad_token_id": 1,
            "hidden_act": "gelu",
        },
        specials=("<s>", "<pad>", "</s>", "<unk>"),
        start="<s>",
        end="</s>",
        unknown="<unk>",
    ),
    # Decoders have fewer heads for keys and values than for queries, as the real ones.
    "qwen2": TinyFamily(
        tower="decoder",
        config={
            "model_type": "qwen2",
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 96,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "hidden_act": "silu",
            "use_sliding_window": False,
            "sliding_window": 256,
            "eos_token_id": 0,
        },
        specials=("<|endoftext|>", "<pad>"),
        start=None,
        end="<|endoftext|>",
        unknown=None,
    ),
    "llama": TinyFamily(
        tower="decoder",
        config={
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            # Heads that do not add up to the hidden size.
            "hidden_size": 48,
            "head_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "intermediate_size": 80,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "rope_scaling": None,
            "hidden_act": "silu",
            "eos_token_id": 0,
            "pad_token_id": 1,
        },
        specials=("<|endoftext|>", "<pad>"),
        start=None,
        end="<|endoftext|>",
        unknown=None,
    ),
}


def families_of(tower: TowerKind) -> tuple[str, ...]:
    """Model types of a tower."""
    return tuple(name for name, family in FAMILIES.items() if family.tower == tower)
