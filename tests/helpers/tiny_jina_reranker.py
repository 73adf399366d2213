"""jina-reranker-v2 in its published layout at toy size: files, keys of config.json, names and shapes of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, processors

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.exports import Arrays
from tests.helpers.sentencepiece import make_unigram

HIDDEN, INNER, LAYERS, POSITIONS = 32, 48, 2, 34
# No model_type.
CONFIG: dict[str, Any] = {
    "_name_or_path": "jina-reranker-v2-base-multilingual",
    "architectures": ["XLMRobertaForSequenceClassification"],
    "attention_probs_dropout_prob": 0.1,
    "auto_map": {
        "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
        "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
    },
    "bos_token_id": 0,
    "classifier_dropout": None,
    "emb_pooler": None,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN,
    "num_labels": 1,
    "id2label": {"0": "LABEL_0"},
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "label2id": {"LABEL_0": 0},
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "output_past": True,
    "pad_token_id": 1,
    "position_embedding_type": "absolute",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0",
    "type_vocab_size": 1,
    "use_cache": False,
    "use_flash_attn": True,
}


def make_jina_reranker(folder: Path, *, seed: int = 7) -> Path:
    """Write a checkpoint."""
    folder.mkdir(parents=True)
    tokenizer = make_unigram()
    _add_pairs(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {**CONFIG, "vocab_size": tokenizer.get_vocab_size()}
    write_safetensors(folder / "model.safetensors", make_tensors(config["vocab_size"], seed), {"format": "pt"})
    special = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    settings = {
        **special,
        "pad_token": "<pad>",
        "mask_token": "<mask>",
        "model_max_length": POSITIONS - 2,
        "tokenizer_class": "XLMRobertaTokenizer",
    }
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA toy.\n")
    return folder


def _add_pairs(tokenizer: Tokenizer) -> None:
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )


def make_tensors(vocabulary: int, seed: int) -> Arrays:
    """All tensors, with the head in the names of RoBERTa's class."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.25, mean: float = 0.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale + mean).astype(np.float32)

    tensors = {
        "roberta.embeddings.word_embeddings.weight": normal(vocabulary, HIDDEN),
        "roberta.embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN),
        "roberta.embeddings.token_type_embeddings.weight": normal(1, HIDDEN),
        "classifier.dense.weight": normal(HIDDEN, HIDDEN),
        "classifier.dense.bias": normal(HIDDEN),
        "classifier.out_proj.weight": normal(1, HIDDEN, scale=0.5),
        "classifier.out_proj.bias": normal(1),
    }
    linears = {"mixer.Wqkv": (3 * HIDDEN, HIDDEN), "mixer.out_proj": (HIDDEN, HIDDEN)}
    linears |= {"mlp.fc1": (INNER, HIDDEN), "mlp.fc2": (HIDDEN, INNER)}
    norms = ["roberta.emb_ln"]
    for layer in range(LAYERS):
        prefix = f"roberta.encoder.layers.{layer}"
        for name, shape in linears.items():
            tensors[f"{prefix}.{name}.weight"] = normal(*shape)
            tensors[f"{prefix}.{name}.bias"] = normal(shape[0])
        norms += [f"{prefix}.norm1", f"{prefix}.norm2"]
    for norm in norms:
        tensors[f"{norm}.weight"] = normal(HIDDEN, scale=0.1, mean=1.0)
        tensors[f"{norm}.bias"] = normal(HIDDEN, scale=0.1)
    return tensors
