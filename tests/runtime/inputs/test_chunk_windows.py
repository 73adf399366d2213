"""Windows of documents: every token counts once, chunks have the tokens of their characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.errors import ChunkError, InputError, ItemError
from embedpack.inputs import chunk_windows
from embedpack.inputs.chunk_windows import ChunkReader, ChunkWindow, chunk_weights
from embedpack.inputs.documents import Document, read_documents
from embedpack.inputs.processor import Processor
from embedpack.inputs.tokenizer import TextRules, TextTokenizer
from embedpack.pack.input_recipes import Prompt
from tests.helpers.tokenizers import TOKENIZERS, special_id

WORDS = st.text("cat Ro,é猫\n", min_size=1, max_size=12).filter(lambda text: text.strip(" \n,é猫"))
DOCUMENTS = st.lists(st.lists(WORDS, min_size=1, max_size=8), min_size=1, max_size=3)
KINDS = ("word piece", "byte level", "unigram")


def reader(kind: str, limit: int, prompt: str = "", rules: TextRules | None = None) -> ChunkReader:
    tokenizer = TextTokenizer(TOKENIZERS[kind].to_str().encode(), limit, rules)
    return ChunkReader(Processor(tokenizer, 0), Prompt(prefix=prompt))


def summed(windows: Sequence[ChunkWindow], total: int, values: int) -> npt.NDArray[np.int64]:
    """Number of tokens of each id in each chunk, by the weights of the windows."""
    sums = np.zeros((total, values), np.int64)
    for window in windows:
        (weights,) = chunk_weights([window.input], len(window.input.ids))
        one_hot = np.eye(values, dtype=np.int64)[window.input.ids]
        sums[window.first : window.first + len(weights)] += weights.astype(np.int64) @ one_hot
    return sums


@pytest.mark.parametrize("kind", KINDS)
@given(chunks=DOCUMENTS, limit=st.integers(8, 40), prompt=st.sampled_from(["", "[Q]cat: "]))
def test_every_token_counts_once(kind: str, chunks: list[list[str]], limit: int, prompt: str) -> None:
    documents = read_documents(chunks)
    whole, parts = reader(kind, 2000, prompt), reader(kind, limit, prompt)
    total, values = sum(map(len, documents)), TOKENIZERS[kind].get_vocab_size()
    one, many = list(whole.windows(documents)), list(parts.windows(documents))
    assert len(one) == len(documents)
    assert all(len(window.input.ids) <= limit for window in many)
    assert sum(window.ended for window in many) == total
    np.testing.assert_array_equal(summed(one, total, values), summed(many, total, values))
    for document, window in zip(documents, one, strict=True):
        assert window.input.chunks is not None
        spans = window.input.chunks
        assert (spans[0, 0], spans[-1, 1]) == (0, len(window.input.ids))
        assert np.array_equal(spans[1:, 0], spans[:-1, 1])
        expected = whole.processor.tokenizer.encode([document.text], prompt)[0].ids
        np.testing.assert_array_equal(window.input.ids, expected)


@pytest.mark.parametrize("kind", KINDS)
@given(chunks=st.lists(WORDS, min_size=2, max_size=8))
def test_tokens_of_a_chunk_are_those_of_its_characters(kind: str, chunks: list[str]) -> None:
    (document,) = read_documents(chunks)
    (window,) = reader(kind, 2000).windows([document])
    tokens = reader(kind, 2000).processor.tokenizer.encode([document.text], "", offsets=True)[0]
    assert window.input.chunks is not None
    assert tokens.offsets is not None
    for (begin, end), (first, stop) in zip(document.spans, window.input.chunks, strict=True):
        ends = tokens.offsets[first:stop, 1][~tokens.special[first:stop]]
        assert ((ends > begin) & (ends <= end)).all()


@pytest.mark.parametrize("limit", [9, 12, 30])
def test_more_chunks_than_the_weights_hold_are_read_in_groups(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = read_documents([["c", "a", "t"] * 9, ["cat roof"]])
    values = TOKENIZERS["word piece"].get_vocab_size()
    expected = summed(list(reader("word piece", limit).windows(documents)), 28, values)
    monkeypatch.setattr(chunk_windows, "MAX_WEIGHTS", 2 * limit)
    windows = list(reader("word piece", limit).windows(documents))
    assert max(window.input.chunks.size for window in windows if window.input.chunks is not None) <= 4
    assert sum(window.ended for window in windows) == 28
    np.testing.assert_array_equal(summed(windows, 28, values), expected)


def test_a_hundred_thousand_chunks() -> None:
    """In windows whose weights fit into memory; each ends once."""
    windows = list(reader("word piece", 512).windows(read_documents(["cat"] * 100_000)))
    spans = [window.input.chunks for window in windows if window.input.chunks is not None]
    assert sum(window.ended for window in windows) == 100_000
    assert sum(int((ends - begins).sum()) for begins, ends in (span.T for span in spans)) == 100_001
    assert max(len(span) * len(window.input.ids) for span, window in zip(spans, windows, strict=True)) <= 512**2


def test_windows_overlap_by_a_quarter_and_a_token_counts_where_it_has_more_context() -> None:
    """Limit 9 with one special token: windows of 8 tokens, steps of 6, the last at the end."""
    (document,) = read_documents(["c a t c a t c a t c a t c a t c a t c a t"])
    windows = list(reader("word piece", 9).windows([document]))
    spans = [window.input.chunks.tolist() for window in windows if window.input.chunks is not None]
    # Starts 0, 6, 12, 13: the cuts are the middles of the overlaps 6-8, 12-14, 13-20.
    assert spans == [[[0, 7]], [[1, 7]], [[1, 4]], [[3, 9]]]
    assert [window.ended for window in windows] == [0, 0, 0, 1]


def test_tokens_before_and_behind_a_text_stand_in_every_window() -> None:
    prompt = Prompt(prefix="[Q]cat ")
    own = reader("word piece", 12, prompt.prefix, TextRules(after=(7,)))
    windows = list(own.windows(read_documents(["c a t roof roof a t", "c a t roof cat cat"])))
    marker, cat = special_id("word piece", "[Q]"), TOKENIZERS["word piece"].token_to_id("cat")
    assert len(windows) > 1
    for window in windows:
        assert window.input.ids[:2].tolist() == [marker, cat]
        assert window.input.ids[-2:].tolist() == [special_id("word piece", "</s>"), 7]


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        (["cat", "\x02"], ChunkError, "document 0 cannot be used: its chunk 1 has no token; leave it out"),
        ([["cat"], ["\x02"]], ItemError, "document 1 has no token; leave it out"),
    ],
)
def test_chunks_without_a_token_are_refused(chunks: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        list(reader("word piece", 30).windows(read_documents(chunks)))
    assert str(caught.value) == message


def test_a_prompt_without_room_for_a_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"the prompt and the special tokens have 6 tokens, of at most 6"):
        list(reader("word piece", 6, "c a t c a ").windows(read_documents(["cat"])))


def test_a_document_with_too_many_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.inputs.tokenizer.ALL_TOKENS", 12)
    documents = read_documents([["cat"], ["cat"] * 12])
    with pytest.raises(ItemError, match=r"^document 1 has more than 12 tokens; split it$"):
        list(reader("word piece", 8).windows(documents))


def test_overlapping_chunks_share_tokens() -> None:
    document = Document(0, "c a t r o", np.array([[0, 5], [3, 9]]))
    (window,) = reader("word piece", 30).windows([document])
    assert window.input.chunks is not None
    assert window.input.chunks.tolist() == [[0, 3], [2, 6]]
