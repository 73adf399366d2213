"""Texts that are blank, or that the tokenizer drops: refused, left out, or zeros."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from embedpack import Embedder, InputError
from embedpack.errors import OptionError
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.vectors.codebook import LOW_BIT
from embedpack.vectors.codes import PRECISIONS

TEXTS = ["a cat", "", "the router", " \t\n", "list every file"]
FULL = [0, 2, 4]


@pytest.fixture(scope="module")
def model(tiny: Path) -> Embedder:
    return Embedder(tiny, weights="fp32", threads=1)


@pytest.fixture
def bare(tiny: Path) -> Embedder:
    """An Embedder whose tokenizer adds nothing to a text, and drops zero-width spaces."""
    model = Embedder(tiny, weights="fp32", threads=1)
    plain = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    plain.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    tokenizer = TextTokenizer(plain.to_str().encode(), max_tokens=32)
    model._encoder.processor = dataclasses.replace(model._encoder.processor, tokenizer=tokenizer)
    return model


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_others_keep_their_vectors(model: Embedder, precision: str) -> None:
    expected = model.encode([TEXTS[row] for row in FULL], precision=precision)
    skipped = model.encode(TEXTS, precision=precision, on_empty="skip")
    assert skipped.ids == ("0", "2", "4")
    np.testing.assert_array_equal(skipped.codes, expected.codes)
    if precision in LOW_BIT:
        with pytest.raises(OptionError, match=f"on_empty='zero' needs .*: {precision} codes have no zero vector"):
            model.encode(TEXTS, precision=precision, on_empty="zero")
        return
    zero = model.encode(TEXTS, precision=precision, on_empty="zero")
    assert zero.ids is None
    np.testing.assert_array_equal(zero.codes[FULL], expected.codes)
    assert not zero.codes[[1, 3]].any()
    assert not zero.decode()[[1, 3]].any()


@given(st.lists(st.sampled_from(["a cat", "the router", "", " ", "\u3000"]), min_size=1, max_size=8))
def test_any_mixture_of_texts(model: Embedder, texts: list[str]) -> None:
    full = [row for row, text in enumerate(texts) if text.strip()]
    skipped = model.encode(texts, on_empty="skip")
    assert skipped.ids == tuple(map(str, full))
    zero = model.encode(texts, on_empty="zero").codes
    assert len(zero) == len(texts)
    assert np.flatnonzero(zero.any(axis=1)).tolist() == full
    np.testing.assert_array_equal(zero[full], skipped.codes)


def test_positions_count_over_all_parts(model: Embedder) -> None:
    parts = list(model.encode_iter(iter(TEXTS), on_empty="skip", batch_size=2))
    assert [part.ids for part in parts] == [("0",), ("2",), ("4",)]
    assert model.encode(iter(TEXTS), on_empty="skip").ids == ("0", "2", "4")


def test_errors_are_the_default(model: Embedder) -> None:
    for texts in (TEXTS, iter(TEXTS)):
        with pytest.raises(InputError, match="text 1 is empty; leave it out, or pass on_empty='skip'"):
            model.encode(texts)
    with pytest.raises(OptionError, match="unknown on_empty 'drop'; known: error, skip, zero"):
        model.encode(TEXTS, on_empty="drop")  # type: ignore[arg-type]


def test_the_number_of_empty_texts_is_logged(model: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    for encode in (model.encode, lambda *args, **options: list(model.encode_iter(*args, **options))):
        caplog.clear()
        encode(TEXTS, on_empty="skip")
        assert caplog.messages == ["2 of 5 texts are empty (on_empty='error' stops instead)"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_text_without_a_token_counts_as_empty(bare: Embedder) -> None:
    dropped = "\u200b\u200b"
    expected = bare.encode(["a cat", "the router"]).codes
    with pytest.raises(InputError, match=r"^text 1 has no token: the tokenizer drops all of its 2 characters; "):
        bare.encode(["a cat", dropped, "the router"])
    skipped = bare.encode(["a cat", dropped, "", "the router"], on_empty="skip")
    assert skipped.ids == ("0", "3")
    np.testing.assert_array_equal(skipped.codes, expected)
    assert not bare.encode(["a cat", dropped, "the router"], on_empty="zero").codes[1].any()


def test_a_prompt_gives_every_text_a_token(bare: Embedder) -> None:
    texts = ["\u200b", ""]
    assert bare.encode(texts, prompt_name="query", on_empty="skip").ids == ("0",)
    assert bare.encode(texts, prompt_name="", on_empty="skip").ids == ()


def test_problems_of_other_kinds_are_still_errors(model: Embedder) -> None:
    with pytest.raises(InputError, match="text 1 has a NUL character"):
        model.encode(["", "a\0"], on_empty="skip")


def test_images_without_tokens_do_not_exist(model: Embedder) -> None:
    with pytest.raises(InputError, match="item 1 is an image; this pack reads texts only"):
        model.encode(["", b"?"], on_empty="skip")


def test_pixels_of_a_pack_that_reads_texts(model: Embedder) -> None:
    with pytest.raises(OptionError, match=r"max_pixels is of no use: .* reads texts only; leave it out"):
        model.encode("a cat", max_pixels=5000)


def test_repr(model: Embedder, tiny: Path) -> None:
    assert repr(model) == f"Embedder({str(tiny)!r}, variant='default-fp32')"
