"""Adapters that were trained to score: their classifier is the head, and scores are those of PEFT unmerged."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, BertForSequenceClassification

from embedpack import Reranker
from embedpack_export.pipeline import export
from embedpack_export.sources.lora_config import CONFIG_FILE
from tests.helpers.exports import edit_json, edit_tensors, quick
from tests.helpers.plans import refuse
from tests.helpers.tiny_reranker import make_base, make_reranker

QUERY = "how do i reset a router ?"
DOCUMENTS = ["reset the router", "the cat sleeps on a warm roof in the rain", "list files", "every label twice " * 9]


class Trained:
    """A cross-encoder with an adapter of random values in place of trained ones."""

    def __init__(self, base: Path, folder: Path, **config: Any) -> None:
        given = {
            "task_type": "SEQ_CLS",
            "modules_to_save": ["classifier"],
            "target_modules": ["query", "value"],
            **config,
        }
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.manual_seed(3)
            model = BertForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
            self.model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, **given))
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
            self.model.eval()
            self.model.save_pretrained(str(folder))
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self.folder = folder

    def scores(self) -> npt.NDArray[np.float32]:
        """Scores of one pair after the other."""
        with torch.inference_mode():
            logits = [
                self.model(**self._tokenizer(QUERY, text, truncation=True, max_length=32, return_tensors="pt")).logits
                for text in DOCUMENTS
            ]
        found: npt.NDArray[np.float32] = torch.sigmoid(torch.cat(logits))[:, 0].numpy()
        return found


@pytest.mark.parametrize("targets", [["query", "value"], "all-linear"])
def test_scores_are_those_of_the_unmerged_adapter(tmp_path: Path, targets: Any) -> None:
    base = make_base(tmp_path / "base")
    trained = Trained(base, tmp_path / "adapter", target_modules=targets)
    manifest = export(quick(base, tmp_path / "pack", adapters={"rerank": tmp_path / "adapter"}, reference="torch"))
    found = Reranker(tmp_path / "pack", weights="fp32", threads=1).score(QUERY, DOCUMENTS)
    expected = trained.scores()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()
    check = manifest.variants["rerank-fp32"].checks["rerank"]
    assert check.reference == "torch"
    assert check.score is not None
    assert check.score.largest_difference < 1e-5
    adapter = manifest.tasks["rerank"].adapter
    assert adapter is not None
    assert adapter.relative_change > 0


def test_each_task_has_the_head_of_its_adapter(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    first = Trained(base, tmp_path / "first")
    second = Trained(base, tmp_path / "second")

    def other_head(tensors: dict[str, Any]) -> None:
        for name in (name for name in tensors if ".classifier." in name):
            tensors[name] = -tensors[name]

    edit_tensors(second.folder / "adapter_model.safetensors", other_head)
    adapters = {"one": first.folder, "two": second.folder}
    export(quick(base, tmp_path / "pack", adapters=adapters, weights=("fp32",)))
    one, two = (Reranker(tmp_path / "pack", task=task, threads=1).score(QUERY, DOCUMENTS) for task in adapters)
    np.testing.assert_allclose(one, first.scores(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(one + two, 1, rtol=0, atol=1e-5)


def test_an_adapter_on_a_cross_encoder_keeps_its_head(tmp_path: Path) -> None:
    base = make_reranker(tmp_path / "base")
    trained = Trained(base, tmp_path / "adapter", modules_to_save=None, task_type=None)
    export(quick(base, tmp_path / "pack", adapters={"rerank": tmp_path / "adapter"}, weights=("fp32",)))
    found = Reranker(tmp_path / "pack", threads=1).score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(found, trained.scores(), rtol=0, atol=1e-5)


def test_an_adapter_without_its_head(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    trained = Trained(base, tmp_path / "adapter")

    def without_head(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if ".classifier." in name]:
            del tensors[name]

    edit_tensors(trained.folder / "adapter_model.safetensors", without_head)
    refuse(
        base,
        f"{base}: neither the checkpoint nor the adapter of 'rerank' has classifier.weight, a part of the head of "
        "scores; train with modules_to_save, or pass --pooling for vectors",
        adapters={"rerank": trained.folder},
    )


def test_scores_and_vectors_are_not_mixed(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    one = Trained(base, tmp_path / "one")
    other = Trained(base, tmp_path / "other")
    edit_json(other.folder / CONFIG_FILE, task_type="FEATURE_EXTRACTION")
    refuse(
        base,
        f"{one.folder}: task_type is SEQ_CLS, those of other adapters are not; a pack gives either scores or vectors: "
        "export the adapters to packs of their own",
        adapters={"one": one.folder, "other": other.folder},
    )


def test_a_pooling_exports_the_vectors_of_such_an_adapter(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    trained = Trained(base, tmp_path / "adapter")
    settings = quick(base, tmp_path / "pack", adapters={"it": trained.folder}, weights=("fp32",), pooling="cls")
    assert export(settings).kind == "embedder"
