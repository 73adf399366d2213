"""Heads of rerankers as graphs, compared with transformers: scores of pairs, vectors at the marks of lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

from embedpack.engine.session import GraphSession
from embedpack.errors import CheckpointError
from embedpack.vectors.arrays import Float32
from embedpack_export.families import find_family
from embedpack_export.families.heads import MarkHead, ScoreHead
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.fp32 import Fp32
from embedpack_export.sources.checkpoint import read_checkpoint
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.weights import Weights
from embedpack_export.stages.graph_heads import Heads, mark_heads, score_heads
from embedpack_export.stages.graph_writer import GraphWriter
from tests.helpers.exports import distance, edit_tensors
from tests.helpers.tiny_checkpoint import make_checkpoint

HIDDEN = 32
CLASSIFIER = ScoreHead(
    "cls", (Dense("pooler.dense", HIDDEN, HIDDEN, True, "tanh"), Dense("classifier", HIDDEN, 1, True))
)
INNER = Dense("projector.0", HIDDEN, 48, bias=False, activation="relu")
MARKS = MarkHead((INNER, Dense("projector.2", 48, 24, bias=False)))
LENGTHS = (7, 1, 12, 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with a classifier of one label, and the projector of a listwise reranker."""
    folder = make_checkpoint(tmp_path_factory.mktemp("reranker") / "checkpoint")
    torch.manual_seed(3)
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=1)
    tensors = {name.removeprefix("bert."): tensor.contiguous() for name, tensor in model.state_dict().items()}
    for name, shape in (("projector.0.weight", (48, HIDDEN)), ("projector.2.weight", (24, 48))):
        tensors[name] = torch.randn(shape) / shape[1] ** 0.5
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def session(checkpoint: Path, folder: Path, heads: Heads) -> GraphSession:
    """The fp32 graph of a checkpoint with these heads."""
    opened = read_checkpoint(checkpoint)
    model = find_family(opened).read(opened)
    folder.mkdir()
    writer = GraphWriter("graph", WeightStore(folder), model.text, Weights(opened, None, model.rules), Fp32())
    for index in range(len(model.text.stages)):
        writer.append(index, {})
    writer.finish(heads, folder / "graph.onnx")
    return GraphSession(folder / "graph.onnx", 1, mapped=True)


def batch(rows: list[npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[Any]]:
    """Right-padded texts."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, text in zip(ids, rows, strict=True):
        row[: len(text)] = text
    mask = np.arange(ids.shape[1]) < np.array([[len(text)] for text in rows])
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


@pytest.fixture(scope="module")
def texts() -> list[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return [rng.integers(4, 90, length) for length in LENGTHS]


def torch_model(checkpoint: Path) -> Any:
    tensors = load_file(checkpoint / "model.safetensors")
    model: Any = BertForSequenceClassification.from_pretrained(checkpoint, num_labels=1)
    for layer, name in ((model.bert.pooler.dense, "pooler.dense"), (model.classifier, "classifier")):
        layer.load_state_dict({part: tensors[f"{name}.{part}"] for part in ("weight", "bias")})
    return model.eval()


def test_scores_of_pairs_equal_transformers(checkpoint: Path, texts: list[Any], tmp_path: Path) -> None:
    graph, model = session(checkpoint, tmp_path / "graph", score_heads(CLASSIFIER)), torch_model(checkpoint)
    (found,) = graph.run(["score"], batch(texts))
    with torch.inference_mode():
        expected = [model(torch.from_numpy(text)[None]).logits[0, 0].item() for text in texts]
    assert found.shape == (len(texts),)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()
    alone = [graph.run(["score"], batch([text]))[0][0] for text in texts]
    np.testing.assert_allclose(alone, found, atol=1e-6)


def test_vectors_at_marks_are_projected_states(checkpoint: Path, texts: list[Any], tmp_path: Path) -> None:
    graph = session(checkpoint, tmp_path / "graph", mark_heads(MARKS))
    index = np.array([[2, 11], [0, 0], [2, 3], [1, 0]], np.int64)
    (found,) = graph.run(["mark_vectors"], {**batch(texts), "mark_index": index})
    tensors, model = load_file(checkpoint / "model.safetensors"), torch_model(checkpoint)
    first, second = tensors["projector.0.weight"], tensors["projector.2.weight"]
    rows: list[Float32] = []
    with torch.inference_mode():
        for row, column in index.tolist():
            state = model.bert(torch.from_numpy(texts[row])[None]).last_hidden_state[0, column]
            rows.append((second @ torch.relu(first @ state)).numpy())
    np.testing.assert_allclose(found, np.stack(rows), atol=1e-5)
    assert distance(found, np.stack(rows)) <= 1e-6


def test_no_marks_give_no_vectors(checkpoint: Path, texts: list[Any], tmp_path: Path) -> None:
    graph = session(checkpoint, tmp_path / "graph", mark_heads(MARKS))
    (found,) = graph.run(["mark_vectors"], {**batch(texts), "mark_index": np.zeros((0, 2), np.int64)})
    assert found.shape == (0, 24)


def test_the_mean_error_of_the_layers_is_corrected_before_the_head(
    checkpoint: Path, texts: list[Any], tmp_path: Path
) -> None:
    offset = np.random.default_rng(1).normal(size=HIDDEN).astype(np.float32)
    plain = session(checkpoint, tmp_path / "plain", score_heads(CLASSIFIER)).run(["score"], batch(texts))[0]
    moved = session(checkpoint, tmp_path / "moved", score_heads(CLASSIFIER, offset)).run(["score"], batch(texts))[0]
    assert np.abs(plain - moved).min() > 1e-4


@pytest.mark.parametrize("heads", [score_heads(CLASSIFIER), mark_heads(MARKS)], ids=["score", "marks"])
@pytest.mark.parametrize("change", ["missing", "misshapen"])
def test_a_tensor_of_a_head_that_is_missing_or_misshapen(
    checkpoint: Path, tmp_path: Path, heads: Heads, change: str
) -> None:
    copy = make_checkpoint(tmp_path / "copy")
    tensors = load_file(checkpoint / "model.safetensors")
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})

    def edit(arrays: dict[str, Any]) -> None:
        for name in ("classifier.weight", "projector.2.weight"):
            stored = arrays.pop(name)
            if change == "misshapen":
                arrays[name] = np.ascontiguousarray(stored[:, :-1])

    edit_tensors(copy / "model.safetensors", edit)
    wanted = r"tensor '(classifier|projector.2).weight' is missing" if change == "missing" else r"has the shape"
    with pytest.raises(CheckpointError, match=wanted):
        session(copy, tmp_path / "graph", heads)
