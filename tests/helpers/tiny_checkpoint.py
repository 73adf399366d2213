"""Tiny encoders in the real layout: random weights from a seed, a small real tokenizer; numpy only.

python -m tests.helpers.tiny_checkpoint bert FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.tiny_families import FAMILIES
from tests.helpers.tiny_rotary import rotary_tensors

WORDS = """the a of to and in is for on with how do i reset router query passage : ? . , ! - cat sleeps warm roof rain
index shelf read every label twice list files in folder larger than one name print sort day week system disk full
network error window door house tree river blue red green small large fast slow new old find search open
close""".split()  # noqa: SIM905


def make_tokenizer(model_type: str) -> Tokenizer:
    """WordPiece over a few words and all printable ASCII letters, with the family's special tokens."""
    family = FAMILIES[model_type]
    assert family.start is not None
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*family.specials, *dict.fromkeys([*WORDS, *letters]), *(f"##{letter}" for letter in letters)]
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=family.unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{family.start} $A {family.end}",
        special_tokens=[(family.start, ids[family.start]), (family.end, ids[family.end])],
    )
    tokenizer.add_special_tokens(list(family.specials))
    return tokenizer


def make_tensors(config: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """All tensors of an encoder under the names of its bare model, float32."""
    family = FAMILIES[config["model_type"]]
    if family.tower == "rotary encoder":
        return rotary_tensors(config, seed)
    rng = np.random.default_rng(seed)
    hidden, inner = config[family.key("hidden_size")], config[family.key("intermediate_size")]

    def normal(*shape: int, scale: float = 0.2, mean: float = 0.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale + mean).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": normal(config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": normal(config["max_position_embeddings"], hidden),
    }
    if "type_vocab_size" in config:
        tensors["embeddings.token_type_embeddings.weight"] = normal(config["type_vocab_size"], hidden)
    if "relative_attention_num_buckets" in config:
        shape = config["relative_attention_num_buckets"], config["num_attention_heads"]
        tensors["encoder.relative_attention_bias.weight"] = normal(*shape, scale=1.0)
    linears = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(config[family.key("num_hidden_layers")]):
        prefix = f"encoder.layer.{layer}"
        for name, shape in linears.items():
            tensors[f"{prefix}.{name}.weight"] = normal(*shape)
            tensors[f"{prefix}.{name}.bias"] = normal(shape[0])
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for norm in norms:
        tensors[f"{norm}.weight"] = normal(hidden, scale=0.1, mean=1.0)
        tensors[f"{norm}.bias"] = normal(hidden, scale=0.1)
    return {family.module(name): tensor for name, tensor in tensors.items()}


def make_checkpoint(folder: Path, model_type: str = "bert", *, seed: int = 7, **changes: object) -> Path:
    """Write a complete sentence-transformers folder; `changes` replace values of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(model_type)
    config = {**FAMILIES[model_type].config, "vocab_size": tokenizer.get_vocab_size(), **changes}
    tokenizer.save(str(folder / "tokenizer.json"))
    write_safetensors(folder / "model.safetensors", make_tensors(config, seed), {"format": "pt"})
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    files: dict[str, object] = {
        "config.json": config,
        "modules.json": modules,
        "1_Pooling/config.json": {
            "word_embedding_dimension": config[FAMILIES[model_type].key("hidden_size")],
            "pooling_mode_mean_tokens": True,
        },
        "sentence_bert_config.json": {"max_seq_length": 32},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "passage": "passage: "},
            "default_prompt_name": None,
            "matryoshka_dims": [8, 16, 32],
        },
        # transformers builds the tokenizer of its own class for a model_type otherwise, from another vocabulary.
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": FAMILIES[model_type].specials[config["pad_token_id"]],
            "unk_token": FAMILIES[model_type].unknown,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA toy.\n")
    return folder


if __name__ == "__main__":
    make_checkpoint(Path(sys.argv[2]), sys.argv[1])
