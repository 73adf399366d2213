"""onnxruntime behind one class: its errors are PackErrors of one line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

from embedpack import CapacityError, PackError
from embedpack.engine import session as session_module
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


@pytest.mark.parametrize(
    "cause", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), ValueError("x\ny"), RuntimeError()]
)
def test_error_of_any_class_while_loading(monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    """Names in a graph that are not UTF-8 for example, within the message of an error."""

    def fail(*_: object, **__: object) -> None:
        raise cause

    monkeypatch.setattr(ort, "InferenceSession", fail)
    with pytest.raises(PackError, match=r"^g\.onnx: onnxruntime .* cannot load it: .+$"):
        GraphSession(Path("g.onnx"), threads=1)


def test_allocation_that_fails_is_no_fault_of_the_pack(session: GraphSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 6 : bfc_arena.cc Failed to allocate memory for requested buffer")

    monkeypatch.setattr(session, "_session", SimpleNamespace(run=fail))
    monkeypatch.setattr(session_module, "RUN_ERRORS", (RuntimeError,))
    with pytest.raises(CapacityError, match=r"sentence_embedding cannot be computed: the memory is full "):
        session.run(["sentence_embedding"], FEEDS)
