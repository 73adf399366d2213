"""Packs whose texts are stripped, or followed by token ids; prompts of packs without multi-vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder, InputError, PackError
from embedpack.inputs.tokenizer import TextRules

Edit = Callable[[Callable[[dict[str, Any]], object]], None]
TEXTS = ["how do i reset the router?", "a cat", "the cat sleeps on a warm roof " * 5]


def ids(model: Embedder, texts: list[str], prompt_name: str = "query") -> list[list[int]]:
    processor = model._encoder.processor
    prompt = model.pack.manifest.tasks["default"].prompt(prompt_name)
    return [item.ids.tolist() for item in processor.process(processor.items(texts), prompt)]


def test_ids_behind_every_text(pack: Path, edit: Edit) -> None:
    plain = ids(Embedder(pack), TEXTS)
    edit(lambda manifest: manifest["text"].update(after=[7, 9]))
    model = Embedder(pack)
    found = ids(model, TEXTS)
    assert found[:2] == [[*row, 7, 9] for row in plain[:2]]
    # The cut comes first: the limit of 32 tokens includes both.
    assert found[2] == [*plain[2][:29], plain[2][-1], 7, 9]
    alone = [model.encode(text, prompt_name="query").codes[0] for text in TEXTS]
    np.testing.assert_allclose(model.encode(TEXTS, prompt_name="query").codes, alone, atol=1e-6)


def test_white_space_around_texts(pack: Path, edit: Edit) -> None:
    edit(lambda manifest: manifest["text"].update(strip=True))
    assert Embedder(pack)._encoder.processor.tokenizer.rules == TextRules(strip=True)


def test_ids_without_room_for_a_text(pack: Path, edit: Edit) -> None:
    edit(lambda manifest: manifest["text"].update(after=[7] * 30))
    with pytest.raises(PackError, match="max_tokens is 32, but the tokenizer adds 32 special tokens to a text"):
        Embedder(pack)


def test_the_limit_of_a_prompt_holds_for_single_vectors(pack: Path, edit: Edit) -> None:
    short = "how do i reset the router?"
    edit(lambda manifest: manifest["tasks"]["default"]["prompts"].update(short={"max_tokens": 6}))
    model = Embedder(pack)
    (found,) = ids(model, [short], "short")
    (whole,) = ids(model, [short], "")
    assert found == [*whole[:5], whole[-1]]
    with pytest.raises(InputError, match="text 0 has more than the 6 tokens of the prompt"):
        model.encode(short, prompt_name="short", on_long="error")
    assert model.encode(short, on_long="error").codes.shape == (1, 32)
