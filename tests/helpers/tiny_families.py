"""Families that the tests make tiny checkpoints of: real values of their configurations, at toy size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TowerKind = Literal["encoder", "rotary encoder", "decoder"]


@dataclass(frozen=True)
class TinyFamily:
    """A family with its configuration and the special tokens of its tokenizer."""

    tower: TowerKind  # encoders: `make_checkpoint` writes them; decoder: `make_decoder`
    config: Mapping[str, Any]  # config.json without the size of the vocabulary
    specials: tuple[str, ...]  # special tokens in the order of their ids
    start: str | None  # special token before a text
    end: str  # special token after a text
    unknown: str | None  # token of unknown words; None: a vocabulary of bytes
    # Spelling of keys of config.json, and of endings of module names, where the family differs from BERT.
    keys: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    first_position: int = 0  # row of the first token in the position table

    def key(self, name: str) -> str:
        """The family's name of a key of BERT's configuration."""
        return self.keys.get(name, name)

    def module(self, name: str) -> str:
        """The family's name of a module of BERT."""
        for old, new in self.modules.items():
            name = name.replace(old, new)
        return name


# Head size 8: heads that are no multiple of a vector register.
ENCODER_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
ROTARY_SHAPE = {**ENCODER_SHAPE, "max_position_embeddings": 2048}
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
        first_position=2,
    ),
    "distilbert": TinyFamily(
        tower="encoder",
        config={
            "model_type": "distilbert",
            "architectures": ["DistilBertModel"],
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 40,
            "pad_token_id": 0,
            "activation": "gelu",
            "sinusoidal_pos_embds": False,
        },
        specials=("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        start="[CLS]",
        end="[SEP]",
        unknown="[UNK]",
        keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        },
        modules={
            "encoder.layer.": "transformer.layer.",
            "attention.self.query": "attention.q_lin",
            "attention.self.key": "attention.k_lin",
            "attention.self.value": "attention.v_lin",
            "attention.output.dense": "attention.out_lin",
            "attention.output.LayerNorm": "sa_layer_norm",
            "intermediate.dense": "ffn.lin1",
            "output.dense": "ffn.lin2",
            "output.LayerNorm": "output_layer_norm",
        },
    ),
    "mpnet": TinyFamily(
        tower="encoder",
        config={
            **ENCODER_SHAPE,
            "model_type": "mpnet",
            "architectures": ["MPNetForMaskedLM"],
            "layer_norm_eps": 1e-5,
            "pad_token_id": 1,
            "hidden_act": "gelu",
            "relative_attention_num_buckets": 32,
        },
        specials=("<s>", "<pad>", "</s>", "<unk>"),
        start="<s>",
        end="</s>",
        unknown="<unk>",
        modules={
            "attention.self.query": "attention.attn.q",
            "attention.self.key": "attention.attn.k",
            "attention.self.value": "attention.attn.v",
            "attention.output.dense": "attention.attn.o",
            "attention.output.LayerNorm": "attention.LayerNorm",
        },
        first_position=2,
    ),
    # Windows of rotary encoders are shorter than the texts of the tests, their longest texts longer than one block.
    "modernbert": TinyFamily(
        tower="rotary encoder",
        config={
            **ROTARY_SHAPE,
            "model_type": "modernbert",
            "architectures": ["ModernBertForMaskedLM"],
            "num_hidden_layers": 4,
            "hidden_activation": "gelu",
            "norm_eps": 1e-5,
            "norm_bias": False,
            "attention_bias": False,
            "mlp_bias": False,
            "local_attention": 8,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 160_000.0,
            "local_rope_theta": 10_000.0,
            "position_embedding_type": "absolute",
            "pad_token_id": 0,
            "cls_token_id": 2,
            "sep_token_id": 3,
        },
        specials=("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        start="[CLS]",
        end="[SEP]",
        unknown="[UNK]",
    ),
    "gte": TinyFamily(
        tower="rotary encoder",
        config={
            **ROTARY_SHAPE,
            "model_type": "gte",
            "architectures": ["GteModel"],
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
            "rope_parameters": {"rope_type": "default", "rope_theta": 20_000.0},
            "pad_token_id": 1,
        },
        specials=("<s>", "<pad>", "</s>", "<unk>"),
        start="<s>",
        end="</s>",
        unknown="<unk>",
    ),
    "nomic_bert": TinyFamily(
        tower="rotary encoder",
        config={
            **ROTARY_SHAPE,
            "model_type": "nomic_bert",
            "architectures": ["NomicBertModel"],
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "hidden_act": "silu",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
            "pad_token_id": 0,
        },
        specials=("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        start="[CLS]",
        end="[SEP]",
        unknown="[UNK]",
    ),
    "eurobert": TinyFamily(
        tower="rotary encoder",
        config={
            **ROTARY_SHAPE,
            "model_type": "eurobert",
            "architectures": ["EuroBertModel"],
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rope_theta": 250_000.0,
            "rope_scaling": None,
            "pad_token_id": 1,
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
    "qwen3": TinyFamily(
        tower="decoder",
        config={
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            # Heads that do not add up to the hidden size.
            "hidden_size": 64,
            "head_dim": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 96,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "rope_scaling": None,
            "hidden_act": "silu",
            "attention_bias": False,
            "use_sliding_window": False,
            "max_window_layers": 2,
            "sliding_window": None,
            "eos_token_id": 0,
        },
        specials=("<|endoftext|>", "<pad>"),
        start=None,
        end="<|endoftext|>",
        unknown=None,
    ),
    "mistral": TinyFamily(
        tower="decoder",
        config={
            "model_type": "mistral",
            "architectures": ["MistralForCausalLM"],
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 96,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "hidden_act": "silu",
            # Shorter than the texts of the tests.
            "sliding_window": 9,
            "eos_token_id": 0,
            "pad_token_id": 1,
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
