"""Documents of chunks: places of the chunks in the joined text, and refusals that name the chunk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.errors import ChunkError, InputError
from embedpack.inputs.documents import NO_CHUNKS, read_documents

CHUNKS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip), min_size=1
)


@given(st.lists(CHUNKS, min_size=1))
def test_spans_are_the_chunks_with_the_space_before_them(chunks: list[list[str]]) -> None:
    for number, (document, expected) in enumerate(zip(read_documents(chunks), chunks, strict=True)):
        assert (document.number, document.text) == (number, " ".join(expected))
        found = [document.text[begin:end] for begin, end in document.spans]
        assert found == [expected[0], *(f" {chunk}" for chunk in expected[1:])]


@given(CHUNKS)
def test_a_list_of_texts_is_one_document(chunks: list[str]) -> None:
    (one,), (same,) = read_documents(chunks), read_documents([chunks])
    assert one.text == same.text
    assert np.array_equal(one.spans, same.spans)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ("a text", f"{NO_CHUNKS}, not a str"),
        ([], f"{NO_CHUNKS}, not an empty one"),
        (["a", 3], f"{NO_CHUNKS}: chunk 1 of document 0 is not a text"),
        ([["a"], "b"], f"{NO_CHUNKS}: document 1 is not a list"),
        ([["a"], []], "document 1 has no chunks; leave it out"),
        (["a", " \n"], "document 0 cannot be used: its chunk 1 is empty; leave it out"),
        (
            [["a"], ["b", "c\0"]],
            "document 1 cannot be used: its chunk 1 has a NUL character at position 1; is it binary data?",
        ),
    ],
)
def test_refusals_name_the_chunk(chunks: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_documents(chunks)
    assert str(caught.value) == message


def test_the_error_of_a_chunk_has_its_position() -> None:
    with pytest.raises(ChunkError) as caught:
        read_documents([["a"], ["b", "c", ""]])
    assert (caught.value.number, caught.value.chunk, caught.value.of_chunk) == (1, 2, "is empty; leave it out")
