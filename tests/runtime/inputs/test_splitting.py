"""Splitting of whole texts: sentences and numbers of tokens, without a character lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.errors import OptionError
from embedpack.inputs.splitting import Splitting, chunk_ids, sentences
from embedpack.inputs.tokenizer import TextTokenizer
from tests.helpers.tokenizers import TOKENIZERS

TEXTS = st.text('cat Ro.!。?"\n é猫', min_size=1, max_size=80).filter(str.strip)
KINDS = ("word piece", "byte level", "unigram")


def tokenizer(kind: str) -> TextTokenizer:
    return TextTokenizer(TOKENIZERS[kind].to_str().encode(), 30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two!  Three?", ["One.", " Two!", "  Three?"]),
        ("3.8 million. e.g. this", ["3.8 million.", " e.g.", " this"]),
        ('He left ("at once!") Then rain...\nno end', ['He left ("at once!")', " Then rain...", "\nno end"]),
        ("今日は晴れ。「本当？」はい", ["今日は晴れ。", "「本当？」", "はい"]),
        ("Heading\n\nText of it\n  \n end. ", ["Heading", "\n\nText of it", "\n  \n end. "]),
        ("\n\n One.", ["\n\n One."]),
        ("one line\nthe next", ["one line\nthe next"]),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[begin:end] for begin, end in sentences(text)] == expected


@given(TEXTS)
def test_sentences_are_the_text_and_none_is_blank(text: str) -> None:
    found = [text[begin:end] for begin, end in sentences(text)]
    assert "".join(found) == text
    assert all(map(str.strip, found))


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, length=st.integers(1, 9), overlap=st.integers(0, 8))
def test_chunks_of_tokens_cover_the_text(kind: str, text: str, length: int, overlap: int) -> None:
    if overlap >= length:
        overlap = length - 1
    own = tokenizer(kind)
    spans = Splitting(length, overlap).document(0, text, own).spans
    assert (spans[0, 0], spans[-1, 1]) == (0, len(text))
    for (begin, end), (after, stop) in itertools.pairwise(spans.tolist()):
        assert begin <= after <= end < stop
        if not overlap:
            assert after == end


def test_numbers_of_tokens() -> None:
    document = Splitting(3, 1).document(0, "c a t r o o f", tokenizer("word piece"))
    assert [document.text[begin:end] for begin, end in document.spans] == ["c a t", " t r o", " o o f"]


def test_ids_have_the_places_without_white_space_around() -> None:
    document = Splitting().document(0, " One. \n Two! ", tokenizer("word piece"))
    assert chunk_ids("a#1", document) == ["a#1#1-5", "a#1#8-12"]
    for name, chunk in zip(chunk_ids("a#1", document), ("One.", "Two!"), strict=True):
        source, _, place = name.rpartition("#")
        begin, end = map(int, place.split("-"))
        assert (source, document.text[begin:end]) == ("a#1", chunk)


@pytest.mark.parametrize(("length", "overlap"), [(None, 1), (3, 3), (3, 4)])
def test_overlaps_that_cannot_be_are_refused(length: int | None, overlap: int) -> None:
    with pytest.raises(OptionError, match="overlap"):
        Splitting(length, overlap)
