"""Options and inputs that Embedder refuses."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from embedpack import Embedder, InputError
from embedpack.engine.session import GraphSession

Open = Callable[[str], Embedder]
Edit = Callable[[Callable[[dict[str, Any]], object]], None]


def option_name(value: object) -> str:
    """The name of a case: its options, without the message."""
    return ",".join(f"{key}={found!r}" for key, found in value.items()) if isinstance(value, dict) else ""


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


@pytest.fixture
def fp32(embedder: Open) -> Embedder:
    return embedder("fp32")


def test_task_must_be_named_where_there_are_several(pack: Path, edit: Edit) -> None:
    def add_task(manifest: dict[str, Any]) -> None:
        manifest["tasks"]["code"] = manifest["tasks"]["default"]
        manifest["variants"]["code-int8"] = {**manifest["variants"]["default-int8"], "task": "code", "checks": {}}

    edit(add_task)
    assert refusal(lambda: Embedder(pack)) == "this pack has several tasks; pass task=, one of: default, code"
    message = "unknown weights 'fp32'; known: int8 (task 'code')"
    assert refusal(lambda: Embedder(pack, task="code", weights="fp32")) == message
    assert Embedder(pack, task="code", threads=1).variant == "code-int8"


def test_a_prompt_of_a_pack_without_prompts(pack: Path, edit: Edit) -> None:
    edit(lambda manifest: manifest["tasks"]["default"].update(prompts={}, default_prompt_name=None))
    assert refusal(lambda: Embedder(pack, threads=1).encode("a cat", prompt_name="passage")) == (
        "unknown prompt_name 'passage'; known: none (task 'default'); export the pack with --prompt NAME=TEXT, or put "
        "the prompt into the texts"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prompt_name": "querry"},
            "unknown prompt_name 'querry'; known: query, passage; did you mean 'query'? (task 'default')",
        ),
        ({"prompt_name": " "}, "unknown prompt_name ' '; known: query, passage (task 'default')"),
        ({"truncate_dim": 12}, "unknown truncate_dim 12; known: 8, 16, 32"),
        ({"truncate_dim": 0}, "unknown truncate_dim 0; known: 8, 16, 32"),
        ({"truncate_dim": 64}, "unknown truncate_dim 64; known: 8, 16, 32"),
        ({"truncate_dim": 16.0}, "unknown truncate_dim 16.0; known: 8, 16, 32; did you mean '16'?"),
        (
            {"precision": "int7"},
            "unknown precision 'int7'; known: float32, float16, int8, 4bit, 2bit, ternary, binary; "
            "did you mean 'int8'?",
        ),
        ({"precision": None}, "unknown precision None; known: float32, float16, int8, 4bit, 2bit, ternary, binary"),
        ({"on_long": "cut"}, "unknown on_long 'cut'; known: truncate, error"),
        ({"max_pixels": 0}, "max_pixels is 0; it must be a whole number of at least 1"),
        ({"max_pixels": 1e6}, "max_pixels is 1000000.0; it must be a whole number of at least 1"),
        ({"task": "retrieval"}, "unknown task 'retrieval'; known: default"),
        ({"task": ["default", "default"]}, "2 tasks for 1 inputs; pass one for all, or one for each"),
    ],
    ids=option_name,
)
def test_unknown_option_of_encoding(fp32: Embedder, options: dict[str, Any], message: str) -> None:
    assert refusal(lambda: fp32.encode("a cat", **options)) == message


# Texts that are odd.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; leave it out, or pass on_empty='skip'"),
        (" \t\n\u3000", "is empty; leave it out, or pass on_empty='skip'"),
        ("a\0b", "has a NUL character at position 1; is it binary data?"),
        (
            "cat \ud83d",
            "has a lone surrogate (U+D83D) at position 4; it was decoded wrongly: "
            "try text.encode('utf-8', 'replace').decode()",
        ),
    ],
)
def test_unusable_text(fp32: Embedder, text: str, message: str) -> None:
    assert refusal(lambda: fp32.encode(text)) == f"text 0 {message}"
    assert refusal(lambda: fp32.encode(["a cat", "a house", text])) == f"text 2 {message}"


def test_text_of_absurd_length(fp32: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.inputs.items.MAX_CHARACTERS", 10)
    message = "text 1 has 11 characters, at most 10 are taken; split it"
    assert refusal(lambda: fp32.encode(["a cat", "a" * 11])) == message


@pytest.mark.parametrize("nothing", [[], (), iter([]), iter(())])
def test_empty_list(fp32: Embedder, nothing: Any) -> None:
    assert refusal(lambda: fp32.encode(nothing)) == "nothing to embed: the list is empty"


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (bytearray(b"a cat"), "bytearray"),
        (5, "int"),
        (None, "NoneType"),
        ({"text": "a cat"}, "dict"),
        ({"a cat"}, "set"),
        (io.StringIO("a cat"), "StringIO"),
        (io.BytesIO(b"a cat"), "BytesIO"),
    ],
)
def test_texts_of_another_type(fp32: Embedder, texts: Any, kind: str) -> None:
    message = (
        "pass a text, an image (PIL.Image.Image, pathlib.Path, bytes, uint8 array [height, width, 3]), or a sequence "
        f"or an iterator of them, not {kind}"
    )
    assert refusal(lambda: fp32.encode(texts)) == message


@pytest.mark.parametrize("image", [b"a cat", np.array(["a cat"]), Path("a cat"), np.zeros((28, 28, 3), np.uint8)])
def test_image_where_only_texts_are_read(fp32: Embedder, image: Any) -> None:
    assert refusal(lambda: fp32.encode(image)) == "item 0 is an image; this pack reads texts only"
    assert refusal(lambda: fp32.encode(["a cat", image])) == "item 1 is an image; this pack reads texts only"


def test_no_multi_vectors(fp32: Embedder) -> None:
    message = "this pack has no multi-vectors; its checkpoint came without a multi-vector projector"
    assert refusal(lambda: fp32.encode_multi("a cat")) == f"{fp32.pack.folder}: {message}"


@pytest.mark.parametrize(("item", "kind"), [(5, "int"), (None, "NoneType"), (["a cat"], "list")])
def test_item_of_another_type(fp32: Embedder, item: Any, kind: str) -> None:
    assert refusal(lambda: fp32.encode(["a cat", item])) == f"item 1 is of type {kind}; a text must be a str"


def test_nothing_is_computed_where_a_later_text_is_unusable(fp32: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.inputs.batching.WINDOW_ITEMS", 2)
    with mock.patch.object(GraphSession, "run", autospec=True, side_effect=GraphSession.run) as run:
        message = refusal(lambda: fp32.encode(["a cat", "a house", "a tree", "a river", ""]))
    assert message == "text 4 is empty; leave it out, or pass on_empty='skip'"
    assert run.call_count == 0
