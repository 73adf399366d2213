"""onnxruntime behind one class: what it cannot do is a PackError of one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from embedpack import PackError
from embedpack.engine.session import GraphSession
from embedpack.host.int8_support import products_saturate

FEEDS = {"input_ids": np.array([[2, 9, 3]]), "attention_mask": np.ones((1, 3), np.int64)}


@pytest.fixture
def session(tiny: Path) -> GraphSession:
    return GraphSession(tiny / "default-fp32.onnx", threads=1)


def test_outputs_come_in_the_order_asked_for(session: GraphSession) -> None:
    binary, vectors = session.run(["sentence_embedding_binary", "sentence_embedding"], FEEDS)
    assert binary.shape == (1, 4)
    assert binary.dtype == np.uint8
    assert vectors.shape == (1, 32)
    assert vectors.dtype == np.float32


def test_unknown_output(session: GraphSession, tiny: Path) -> None:
    with pytest.raises(PackError) as caught:
        session.run(["tokens"], FEEDS)
    assert str(caught.value).startswith(f"{tiny}/default-fp32.onnx: tokens cannot be computed: ")
    assert "\n" not in str(caught.value)


def test_missing_input(session: GraphSession, tiny: Path) -> None:
    with pytest.raises(PackError) as caught:
        session.run(["sentence_embedding"], {"input_ids": FEEDS["input_ids"]})
    assert str(caught.value).startswith(f"{tiny}/default-fp32.onnx: sentence_embedding cannot be computed: ")
    assert "\n" not in str(caught.value)


def test_missing_graph(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    with pytest.raises(PackError) as caught:
        GraphSession(path, threads=1)
    message = f"{path}: onnxruntime {ort.__version__} cannot load it: [ONNXRuntimeError] : 3 : NO_SUCHFILE : "
    assert str(caught.value).startswith(message)


def test_cpu_says_whether_its_products_saturate() -> None:
    assert products_saturate() in (True, False)
