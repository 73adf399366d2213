"""Tiny cross-encoders: the tiny checkpoints with random heads of transformers' classes for sequence classification."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.exports import edit_json, read_tensors
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_families import FAMILIES

# Class of each family, and the tensors of its head by name; h is the hidden size.
CLASSES: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "bert": (
        "BertForSequenceClassification",
        {"pooler.dense.weight": ("h", "h"), "pooler.dense.bias": ("h",), "classifier.weight": ("1", "h")},
    ),
    "xlm-roberta": (
        "XLMRobertaForSequenceClassification",
        {
            "classifier.dense.weight": ("h", "h"),
            "classifier.dense.bias": ("h",),
            "classifier.out_proj.weight": ("1", "h"),
            "classifier.out_proj.bias": ("1",),
        },
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {
            "pre_classifier.weight": ("h", "h"),
            "pre_classifier.bias": ("h",),
            "classifier.weight": ("1", "h"),
            "classifier.bias": ("1",),
        },
    ),
    "modernbert": (
        "ModernBertForSequenceClassification",
        {"head.dense.weight": ("h", "h"), "head.norm.weight": ("h",), "classifier.weight": ("1", "h")},
    ),
    "gte": (
        "GteForSequenceClassification",
        {"pooler.dense.weight": ("h", "h"), "pooler.dense.bias": ("h",), "classifier.weight": ("1", "h")},
    ),
}
# Prefix of the tower's tensors in each class.
TOWERS = {"bert": "bert", "xlm-roberta": "roberta", "distilbert": "distilbert", "modernbert": "model", "gte": "gte"}
HEADS = ("classifier", "pre_classifier", "head")
OF_EMBEDDINGS = ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json")


def make_reranker(folder: Path, model_type: str = "bert", *, seed: int = 11, **changes: object) -> Path:
    """Write a CrossEncoder folder as transformers names its tensors; `changes` replace values of config.json."""
    make_checkpoint(folder, model_type)
    edit_json(folder / "config.json", **changes)
    for name in OF_EMBEDDINGS:
        (folder / name).unlink()
    name, shapes = CLASSES[model_type]
    edit_json(folder / "config.json", architectures=[name], id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    edit_json(folder / "sentence_bert_config.json", transformer_task="sequence-classification")
    hidden = json.loads((folder / "config.json").read_text())[FAMILIES[model_type].key("hidden_size")]
    tensors = read_tensors(folder / "model.safetensors") | head_tensors(shapes, hidden, seed)
    write_safetensors(
        folder / "model.safetensors",
        {_name(model_type, each): tensor for each, tensor in tensors.items()},
        {"format": "pt"},
    )
    add_pairs(folder, model_type)
    return folder


def make_base(folder: Path) -> Path:
    """Write a SentenceTransformer of BERT with its pooler, as published checkpoints have it."""
    make_checkpoint(folder)
    shapes = {name: shape for name, shape in CLASSES["bert"][1].items() if name.startswith("pooler.")}
    tensors = read_tensors(folder / "model.safetensors")
    hidden = json.loads((folder / "config.json").read_text())["hidden_size"]
    head = {name: tensor for name, tensor in head_tensors(shapes, hidden, 5).items() if name in shapes}
    write_safetensors(folder / "model.safetensors", tensors | head, {"format": "pt"})
    add_pairs(folder, "bert")
    return folder


def head_tensors(shapes: Mapping[str, tuple[str, ...]], hidden: int, seed: int) -> dict[str, np.ndarray]:
    """Random tensors of a head; a classifier without a bias in `shapes` gets one."""
    rng = np.random.default_rng(seed)
    complete = {**shapes, **({} if "classifier.out_proj.weight" in shapes else {"classifier.bias": ("1",)})}
    sizes = {"h": hidden, "1": 1}
    return {
        name: (rng.standard_normal([sizes[axis] for axis in shape]) * 0.4 + name.endswith("norm.weight")).astype(
            np.float32
        )
        for name, shape in complete.items()
    }


def _name(model_type: str, name: str) -> str:
    return name if name.partition(".")[0] in HEADS else f"{TOWERS[model_type]}.{name}"


def add_pairs(folder: Path, model_type: str) -> None:
    """Give the tokenizer the pairs of its family, and BERT's its token types."""
    family, path = FAMILIES[model_type], folder / "tokenizer.json"
    document = json.loads(path.read_text())
    of_bert = model_type == "bert"

    def special(token: str, type_id: int) -> dict[str, object]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    assert family.start is not None
    between = [special(family.end, 0)] * (2 if model_type == "xlm-roberta" else 1)
    document["post_processor"]["pair"] = [
        special(family.start, 0),
        {"Sequence": {"id": "A", "type_id": 0}},
        *between,
        {"Sequence": {"id": "B", "type_id": int(of_bert)}},
        special(family.end, int(of_bert)),
    ]
    path.write_text(json.dumps(document))
    if of_bert:
        edit_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
