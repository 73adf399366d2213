"""A pack as a model of mteb."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embedpack.errors import InputError, MissingExtraError
from embedpack.pack.folder import read_pack
from embedpack.vectors.arrays import Float32
from embedpack_export.evaluation.mteb_scores import MtebEncoder, kind_of, mteb_scores, scores_of, zeros_for_empty
from embedpack_export.evaluation.sets.empty_text_filter import EmptyTextFilter
from embedpack_export.reference.opening import ReferenceSource, open_reference
from tests.helpers.tiny_pack import TINY_PACK

ASKED: dict[str, Any] = {"task_metadata": SimpleNamespace(name="Some"), "hf_split": "test", "hf_subset": "default"}


class Heard:
    """Model that records inputs and prompts."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str]] = []

    def encode(self, texts: Sequence[str], wanted: str) -> Float32:
        self.calls.append((list(texts), wanted))
        return np.eye(2, dtype=np.float32)[: len(texts)]


def test_batches_are_joined_and_documents_have_their_prompt() -> None:
    heard = Heard()
    encoder = MtebEncoder("int8", heard.encode)
    batches = [{"text": ["a"]}, {"text": ["b"]}]
    found = encoder.encode(batches, **ASKED, prompt_type=SimpleNamespace(value="document"), batch_size=32)
    assert found.shape == (2, 2)
    encoder.encode(batches, **ASKED, prompt_type=SimpleNamespace(value="query"))
    encoder.encode(batches, **ASKED)
    assert heard.calls == [(["a", "b"], wanted) for wanted in ("document", "query", "query")]


def test_empty_texts_have_vectors_of_zeros(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    encode = zeros_for_empty(heard.encode, EmptyTextFilter.of(read_pack(TINY_PACK)), 2)
    found = encode(["", "a cat", "\t", "a dog"], "document")
    assert found.tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]
    assert heard.calls == [(["a cat", "a dog"], "document")]
    assert caplog.messages == ["mteb: 2 of 4 texts are empty: their vectors are zeros"]
    assert not encode([" "], "query").any()


def test_inputs_that_are_no_texts_are_told() -> None:
    with pytest.raises(InputError, match=r"Some \(default, test\): its inputs are image, not texts"):
        MtebEncoder("int8", Heard().encode).encode([{"image": ["x"]}], **ASKED)


def test_similarities_are_cosines_of_unit_vectors() -> None:
    encoder = MtebEncoder("int8", Heard().encode)
    one, other = np.array([[1, 0], [0, 1]], np.float32), np.array([[0.6, 0.8], [0, 1]], np.float32)
    assert encoder.similarity(one, other) == pytest.approx(np.array([[0.6, 0], [0.8, 1]]))
    assert encoder.similarity_pairwise(one, other) == pytest.approx([0.6, 1])


def test_tasks_of_mteb_are_of_our_kinds() -> None:
    kinds = [("STS", ["Web"]), ("Retrieval", ["Programming", "Written"]), ("Retrieval", None), ("Clustering", [])]
    assert [kind_of(SimpleNamespace(type=kind, domains=domains)) for kind, domains in kinds] == [
        "sts", "code", "retrieval", "retrieval",
    ]  # fmt: skip


def test_without_mteb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    pack = read_pack(TINY_PACK)
    with pytest.raises(MissingExtraError, match=r"pip install 'embedpack\[mteb\]'"):
        mteb_scores(pack, open_reference(pack, ReferenceSource(None, {}, None), 1), ["STS12"], (), 1)


# Warnings of the packages below mteb are not ours to fix.
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(importlib.util.find_spec("mteb") is None, reason="needs pip install 'embedpack[mteb]'")
def test_mteb_takes_it_for_an_encoder() -> None:
    from mteb.mocks.mock_tasks import MockRetrievalTask, MockSTSTask

    pack = read_pack(TINY_PACK)
    reference = open_reference(pack, ReferenceSource(None, {}, None), 1)
    for task in (MockRetrievalTask(), MockSTSTask()):
        (found,) = scores_of(pack, reference, task, ["default-fp32"], 1)
        assert found.difference == 0
        assert found.task == "default"
