"""jina-colbert-v2 in its layout at toy size: files of ColBERT's own code around the tower of jina-embeddings-v3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.sentencepiece import make_unigram
from tests.helpers.tiny_colbert import ARTIFACT
from tests.helpers.tiny_jina_v3 import CODE, CONFIG, HIDDEN, PARTS, make_tensors

DIMENSIONS = 128
MARKERS = ("[QueryMarker]", "[DocumentMarker]")
OF_ADAPTERS = ("lora_", "task_instructions", "load_trained", "matryoshka", "truncate_dim", "auto_map", "emb_pooler")


def make_jina_colbert(folder: Path, **metadata: Any) -> Path:
    """Write a checkpoint; `metadata` are values of artifact.metadata."""
    folder.mkdir(parents=True)
    tokenizer = make_unigram()
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKERS])
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
    tensors = {
        name.replace(f"{PARTS}.original", ".weight"): tensor
        for name, tensor in make_tensors(vocabulary, 3).items()
        if ".lora_" not in name
    }
    tensors["linear.weight"] = np.random.default_rng(4).standard_normal((DIMENSIONS, HIDDEN)).astype(np.float32)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    kept = {key: value for key, value in CONFIG.items() if not key.startswith(OF_ADAPTERS)}
    auto_map = {
        "AutoConfig": f"{CODE}configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": f"{CODE}modeling_xlm_roberta.XLMRobertaModel",
    }
    artifact = {
        **ARTIFACT, "query_token_id": MARKERS[0], "doc_token_id": MARKERS[1], "query_maxlen": 32, "doc_maxlen": 60,
        "attend_to_mask_tokens": True, "dim": DIMENSIONS, **metadata,
    }  # fmt: skip
    special = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    files: dict[str, object] = {
        "config.json": {**kept, "architectures": ["HF_ColBERT"], "vocab_size": vocabulary, "auto_map": auto_map},
        "artifact.metadata": artifact,
        "tokenizer_config.json": {
            **special,
            "pad_token": "<pad>",
            "mask_token": "<mask>",
            "model_max_length": 2050,
            "tokenizer_class": "XLMRobertaTokenizer",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA toy.\n")
    return folder
