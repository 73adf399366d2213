"""Iterables of inputs, and results in parts: windows, order, and errors that name the item."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import Embedder, InputError
from embedpack.engine.loading import _log_slow_int8
from embedpack.engine.session import GraphSession
from embedpack.vectors.embeddings import concatenate
from tests.helpers.tiny_pack import TINY_PACK

Open = Callable[[str], Embedder]

FORMATS = ("fp32", "int8", "int4")
TOKENIZER = json.loads((TINY_PACK / "tokenizer.json").read_bytes())
WORDS = [word for word in TOKENIZER["model"]["vocab"] if not word.startswith("##")]
# Words in the vocabulary, special tokens among them, and some that are cut into pieces or unknown.
WORDS += ["zebra", "Kühlschrank", "猫", "😀"]


def largest_distance(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """The largest 1 - cosine of two arrays of vectors, row by row, in float64."""
    first, second = np.asarray(left, np.float64), np.asarray(right, np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float((1 - (first * second).sum(axis=1) / lengths).max())


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


@pytest.fixture(params=FORMATS)
def model(request: pytest.FixtureRequest, embedder: Open) -> Embedder:
    """The tiny pack in each weights format."""
    return embedder(request.param)


@pytest.fixture
def fp32(embedder: Open) -> Embedder:
    return embedder("fp32")


# Iterators.


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 20])
def test_iterator_gives_what_its_list_gives(fp32: Embedder, count: int) -> None:
    texts = [" ".join(WORDS[: 1 + index * 7 % 20]) for index in range(count)]
    chosen: list[dict[str, Any]] = [{}, {"precision": "int8", "truncate_dim": 16, "prompt_name": "query"}]
    for options in chosen:
        listed, taken = fp32.encode(texts, **options), fp32.encode(iter(texts), **options)
        assert (len(taken), taken.precision, taken.dimensions, taken.space) == (
            count,
            listed.precision,
            listed.dimensions,
            listed.space,
        )
        assert largest_distance(listed, taken) <= 1e-6


def test_iterator_is_taken_in_windows(fp32: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.inputs.batching.WINDOW_ITEMS", 20)
    taken: list[int] = []
    seen: list[int] = []

    def texts() -> Iterator[str]:
        for index in range(50):
            taken.append(index)
            yield "a cat"

    def run(*arguments: Any, **options: Any) -> Any:
        seen.append(len(taken))
        return original(*arguments, **options)

    original = GraphSession.run
    with mock.patch.object(GraphSession, "run", autospec=True, side_effect=run):
        assert len(fp32.encode(texts())) == 50
    assert seen == [20, 40, 50]


def test_parts_come_in_order_and_equal_one_call(model: Embedder) -> None:
    texts = [" ".join(WORDS[: 1 + index * 7 % 20]) for index in range(11)]
    parts = list(model.encode_iter(iter(texts), batch_size=4, precision="int8", truncate_dim=16))
    assert [len(part) for part in parts] == [4, 4, 3]
    expected = model.encode(texts, precision="int8", truncate_dim=16)
    assert np.array_equal(concatenate(parts).codes, expected.codes)


def test_parts_are_made_when_they_are_asked_for(fp32: Embedder) -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield "a cat"

    parts = fp32.encode_iter(texts(), batch_size=10)
    assert taken == 0
    next(parts)
    assert taken == 10
    next(parts)
    assert taken == 20


@pytest.mark.parametrize("inputs", [[], iter([]), ()])
def test_no_items_give_no_parts(fp32: Embedder, inputs: Any) -> None:
    assert list(fp32.encode_iter(inputs)) == []


def test_parts_of_one_text_of_a_list_and_of_any_iterable(fp32: Embedder) -> None:
    for inputs in ("a cat", ["a cat"], ("a cat",), {"a cat": 1}.keys()):
        (part,) = fp32.encode_iter(inputs)
        assert np.array_equal(part.codes, fp32.encode("a cat").codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5; it must be a whole number of at least 1"),
        ({"task": ["default"]}, "task is ['default']; pass one task for all items"),
        ({"task": "defualt"}, "unknown task 'defualt'; known: default; did you mean 'default'?"),
        ({"prompt_name": "none"}, "unknown prompt_name 'none'"),
        ({"precision": "int9"}, "unknown precision 'int9'"),
        ({"truncate_dim": 7}, "unknown truncate_dim 7"),
        ({"on_long": "cut"}, "unknown on_long 'cut'"),
        ({"max_pixels": 0}, "max_pixels is 0; it must be a whole number of at least 1"),
    ],
)
def test_options_of_parts_are_checked_before_the_first(fp32: Embedder, options: dict[str, Any], message: str) -> None:
    assert refusal(lambda: fp32.encode_iter(iter(()), **options)).startswith(message)


@pytest.mark.parametrize("inputs", [5, {"a": "text"}, io.StringIO("a cat"), None])
def test_inputs_of_parts_that_give_no_items(fp32: Embedder, inputs: Any) -> None:
    message = f"pass an iterable of texts and images, not {type(inputs).__name__}"
    assert refusal(lambda: fp32.encode_iter(inputs)) == message


def test_items_of_parts_are_counted_from_the_first(fp32: Embedder) -> None:
    parts = fp32.encode_iter(iter(["a cat"] * 5 + [""]), batch_size=2)
    assert refusal(lambda: list(parts)).startswith("text 5 is empty; ")


@pytest.mark.parametrize("saturate", [False, True])
def test_slow_int8_of_a_cpu_is_told_once(
    tiny: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, saturate: bool
) -> None:
    monkeypatch.setattr("embedpack.engine.loading.products_saturate", lambda: saturate)
    _log_slow_int8.cache_clear()
    with caplog.at_level(logging.DEBUG, "embedpack"):
        for weights in ("fp32", "int8", "int8"):
            Embedder(tiny, weights=weights, threads=1)
    told = [message for message in caplog.messages if message.startswith("this CPU has no int8 dot products (VNNI)")]
    assert len(told) == saturate


def test_cut_texts_of_parts_are_told_once(fp32: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(fp32.encode_iter(iter(["cat " * 99, "a cat", "cat " * 99]), batch_size=1))) == 3
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "Truncated 2 of 3 texts to 32 tokens: 0, 2 (on_long='error' stops instead)"
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "text 11 is empty; leave it out, or pass on_empty='skip'"),
        (b"?", "item 11 is an image; this pack reads texts only"),
        ("cat " * 99, "text 11 has more than the 32 tokens of the model; "),
    ],
)
def test_items_of_an_iterator_are_counted_from_its_start(fp32: Embedder, bad: Any, message: str) -> None:
    texts = [*["a cat"] * 11, bad]
    assert refusal(lambda: fp32.encode(iter(texts), on_long="error")).startswith(message)


def test_cut_texts_of_an_iterator_are_told_once(fp32: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "embedpack"):
        fp32.encode(iter(["cat " * 40, *["cat"] * 9, "cat " * 40]))
    assert [record.getMessage() for record in caplog.records] == [
        "Truncated 2 of 11 texts to 32 tokens: 0, 10 (on_long='error' stops instead)"
    ]


def test_error_of_an_iterator_is_passed_on(fp32: Embedder) -> None:
    def texts() -> Iterator[str]:
        yield "a cat"
        raise InputError("page 2 is damaged")

    assert refusal(lambda: fp32.encode(texts())) == "page 2 is damaged"


def test_tasks_of_an_iterator_cannot_differ(fp32: Embedder) -> None:
    message = "pass one task for all items of an iterator, or a list of the items"
    assert refusal(lambda: fp32.encode(iter(["a cat"]), task=["default"])) == message
    assert len(fp32.encode(iter(["a cat"]), task="default")) == 1
