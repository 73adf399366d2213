"""Tiny ColBERT models in the published layouts: ColBERT's own code, PyLate, PyLate with an adapter."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.storage.safetensors import open_safetensors, write_safetensors
from tests.helpers.exports import edit_json
from tests.helpers.tiny_checkpoint import make_checkpoint

HIDDEN, DIMENSIONS = 32, 16
FLAGS = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
QUERY_LENGTH, DOCUMENT_LENGTH = 9, 20
# Some of the keys that ColBERT writes.
ARTIFACT: dict[str, Any] = {
    "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[Q]", "doc_token": "[D]",
    "ncells": None, "nbits": 2, "similarity": "cosine", "bsize": 32, "lr": 1e-05, "relu": False, "nway": 64,
    "query_maxlen": QUERY_LENGTH, "attend_to_mask_tokens": False, "interaction": "colbert", "dim": DIMENSIONS,
    "doc_maxlen": DOCUMENT_LENGTH, "mask_punctuation": True, "checkpoint": "x", "meta": {"hostname": "y"},
}  # fmt: skip
PYLATE: dict[str, Any] = {
    "__version__": {"sentence_transformers": "4.0.2", "transformers": "4.48.2", "pytorch": "2.5.1+cu124"},
    "model_type": "ColBERT", "prompts": {}, "default_prompt_name": None, "similarity_fn_name": "MaxSim",
    "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": QUERY_LENGTH,
    "document_length": DOCUMENT_LENGTH, "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation), "do_query_expansion": True,
}  # fmt: skip
IDENTITY = "torch.nn.modules.linear.Identity"


def _matrix(rows: int, columns: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, columns)) / columns**0.5).astype(np.float32)


def add_tokens(folder: Path, *tokens: str, special: bool) -> None:
    """Add tokens behind the vocabulary, as PyLate does; the embedding table has room for them."""
    content = json.loads((folder / "tokenizer.json").read_text())
    first = max([len(content["model"]["vocab"]) - 1, *(entry["id"] for entry in content["added_tokens"])]) + 1
    content["added_tokens"] += [
        {"id": first + row, "content": token, "special": special, **FLAGS} for row, token in enumerate(tokens)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def _without_modules(folder: Path) -> Path:
    """Remove what makes a folder one for single vectors."""
    shutil.rmtree(folder / "1_Pooling")
    for name in ("modules.json", "config_sentence_transformers.json"):
        (folder / name).unlink()
    edit_json(folder / "tokenizer_config.json", mask_token="[MASK]")
    return folder


def make_hf_colbert(folder: Path, **changes: Any) -> Path:
    """A checkpoint of ColBERT's own code; `changes` are values of artifact.metadata, None takes a key out."""
    _without_modules(make_checkpoint(folder, vocab_size=300))
    add_tokens(folder, "[MASK]", "[unused0]", "[unused1]", special=True)
    edit_json(folder / "config.json", architectures=["HF_ColBERT"])
    tensors = {f"bert.{name}": t.raw() for name, t in open_safetensors(folder / "model.safetensors").tensors.items()}
    tensors["linear.weight"] = _matrix(DIMENSIONS, HIDDEN, 1)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    metadata = {key: value for key, value in {**ARTIFACT, **changes}.items() if key not in changes or value is not None}
    (folder / "artifact.metadata").write_text(json.dumps(metadata))
    return folder


def write_dense(folder: Path, inputs: int, outputs: int, seed: int, **config: Any) -> None:
    """A Dense as PyLate saves it."""
    folder.mkdir(parents=True)
    tensors = {"linear.weight": _matrix(outputs, inputs, seed)}
    if config.get("use_residual") and inputs != outputs:
        tensors["residual.weight"] = _matrix(outputs, inputs, seed + 10)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    fields = {"in_features": inputs, "out_features": outputs, "bias": False, "activation_function": IDENTITY}
    (folder / "config.json").write_text(json.dumps({**fields, **config}))


def write_pylate(folder: Path, dense: int, **settings: Any) -> Path:
    """modules.json and the settings of PyLate for a number of Dense modules."""
    modules = [("", "sentence_transformers.models.Transformer")]
    modules += [(f"{number}_Dense", "pylate.models.Dense.Dense") for number in range(1, dense + 1)]
    entries = [{"idx": row, "name": str(row), "path": path, "type": kind} for row, (path, kind) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({**PYLATE, **settings}))
    return folder


def make_pylate(folder: Path, model_type: str = "bert", **settings: Any) -> Path:
    """A model of PyLate with two Dense, both with a residual connection, the first with an activation."""
    _without_modules(make_checkpoint(folder, model_type, vocab_size=300))
    add_tokens(folder, "[MASK]", special=True)
    add_tokens(folder, "[Q] ", "[D] ", special=False)
    edit_json(folder / "sentence_bert_config.json", max_seq_length=DOCUMENT_LENGTH - 1)
    write_dense(folder / "1_Dense", HIDDEN, HIDDEN, 1, use_residual=True, activation_function="torch.nn.GELU")
    write_dense(folder / "2_Dense", HIDDEN, DIMENSIONS, 2, use_residual=True)
    return write_pylate(folder, 2, **settings)
