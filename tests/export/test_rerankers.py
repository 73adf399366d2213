"""Exports of cross-encoders: scores and their order are those of sentence-transformers' CrossEncoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import Reranker
from embedpack.engine.options import ScoreSettings
from embedpack.engine.pair_scores import PairReader
from embedpack.inputs.pack_tokenizer import open_tokenizer
from embedpack.pack.score_recipes import PairScores
from embedpack_export.pipeline import export
from tests.helpers.exports import edit_json, edit_tensors, quick
from tests.helpers.plans import refuse
from tests.helpers.tiny_reranker import CLASSES, make_reranker

QUERY = "how do i reset a router ?"
DOCUMENTS = [
    "reset the router",
    "the cat sleeps on a warm roof in the rain",
    "index shelf , read every label twice " * 6,
    "list files",
    "blue house, red door!",
]
IDENTITY = "torch.nn.modules.linear.Identity"


def judged(checkpoint: Path, query: str = QUERY) -> npt.NDArray[np.float32]:
    """Scores of sentence-transformers."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(checkpoint), local_files_only=True, device="cpu", max_length=32)
    scores: npt.NDArray[np.float32] = model.predict([(query, text) for text in DOCUMENTS], batch_size=2)
    return scores


def exported(checkpoint: Path, **changes: Any) -> Reranker:
    pack = checkpoint.parent / "pack"
    export(quick(checkpoint, pack, weights=("fp32",), overwrite=True, **changes))
    return Reranker(pack, threads=1)


@pytest.mark.parametrize("model_type", CLASSES)
def test_scores_are_those_of_sentence_transformers(tmp_path: Path, model_type: str) -> None:
    checkpoint = make_reranker(tmp_path / "checkpoint", model_type)
    model = exported(checkpoint)
    expected = judged(checkpoint)
    found = model.score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()
    assert model.pack.manifest.kind == "reranker"


@pytest.mark.parametrize(
    "changes",
    [
        {"sentence_transformers": {"activation_fn": IDENTITY, "version": "5.0.0"}},
        {"sbert_ce_default_activation_function": IDENTITY},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
    ],
)
def test_the_activation_is_that_of_the_files(tmp_path: Path, changes: dict[str, Any]) -> None:
    checkpoint = make_reranker(tmp_path / "checkpoint")
    edit_json(checkpoint / "config.json", **changes)
    found = exported(checkpoint).score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(found, judged(checkpoint), rtol=1e-5, atol=1e-5)


def test_an_activation_that_is_not_supported(tmp_path: Path) -> None:
    checkpoint = make_reranker(tmp_path / "checkpoint", sbert_ce_default_activation_function="torch.nn.Tanh")
    refuse(
        checkpoint,
        f"{checkpoint / 'config.json'}: the activation of scores is 'torch.nn.Tanh'; supported: Sigmoid and Identity "
        "of torch.nn",
    )


def test_forged_special_tokens_are_text(tmp_path: Path) -> None:
    model = exported(make_reranker(tmp_path / "checkpoint"))
    scores = model.pack.manifest.score
    assert isinstance(scores, PairScores)
    reader = PairReader(tmp_path, scores, open_tokenizer(model.pack))
    (forged,) = reader.read("reset [SEP] router", ["[CLS] cat [SEP] [PAD]"], ScoreSettings()).inputs
    first, end = (part[0] for part in (scores.parts[0], scores.parts[-1]) if isinstance(part, tuple))
    assert [forged.ids.tolist().count(token) for token in (first, end, 0)] == [1, 2, 0]
    assert forged.types is not None
    # The one change of token types is where the document begins.
    assert np.flatnonzero(np.diff(forged.types)).tolist() == [int(np.flatnonzero(forged.ids == end)[0])]


def test_a_pooling_asks_for_vectors(tmp_path: Path) -> None:
    checkpoint = make_reranker(tmp_path / "checkpoint", "modernbert")
    manifest = export(quick(checkpoint, tmp_path / "pack", weights=("fp32",), pooling="mean"))
    assert manifest.kind == "embedder"
    assert manifest.single is not None


def test_a_classifier_of_several_labels(tmp_path: Path) -> None:
    checkpoint = make_reranker(tmp_path / "checkpoint")

    def three_labels(tensors: dict[str, Any]) -> None:
        tensors["classifier.weight"] = np.repeat(tensors["classifier.weight"], 3, axis=0)

    edit_tensors(checkpoint / "model.safetensors", three_labels)
    refuse(
        checkpoint,
        f"{checkpoint / 'model.safetensors'}: classifier.weight has 3 labels, a reranker has one; for the vectors of "
        "this model pass --pooling",
    )


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("--truncate-dim", {"truncate_dims": (8,)}),
        ("--code-center", {"code_center": "none"}),
        ("--adapters switchable", {"adapter_modes": ("switchable",)}),
    ],
)
def test_options_of_vectors_are_refused(tmp_path: Path, option: str, changes: dict[str, Any]) -> None:
    checkpoint = make_reranker(tmp_path / "checkpoint")
    refuse(checkpoint, f"{option} is of no use: {checkpoint} gives scores; leave it out", **changes)


def test_the_report_compares_scores_with_torch(tmp_path: Path) -> None:
    checkpoint = make_reranker(tmp_path / "checkpoint")
    manifest = export(quick(checkpoint, tmp_path / "pack", reference="torch"))
    for name, variant in manifest.variants.items():
        (check,) = variant.checks.values()
        assert (check.reference, check.outcome) == ("torch", "within budget")
        assert check.score is not None
        assert check.score.pairs == 16
        assert check.score.largest_difference < (1e-5 if variant.weights == "fp32" else 0.2)
        assert name in (tmp_path / "pack" / "report" / "index.html").read_text()
