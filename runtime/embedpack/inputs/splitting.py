"""Whole texts to documents of chunks: by sentence, or by a number of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.errors import OptionError
from embedpack.inputs.documents import Document
from embedpack.inputs.tokenizer import TextTokenizer

# A sentence ends behind . ! ? … with closing quotes and brackets, before white space; behind their full-width forms,
# which no space follows; and before a blank line.
SENTENCE_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？]+[”’」』）》]*|(?=\n[^\S\n]*\n)""")

Spans = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Splitting:
    """Rule of the chunks: sentences if `tokens` is None, else that many tokens, of which chunks share `overlap`.

    OptionError for numbers that do not go together.
    """

    tokens: int | None = None
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.tokens is None and self.overlap:
            raise OptionError("an overlap of chunks needs their number of tokens")
        if self.tokens is not None and not 0 <= self.overlap < self.tokens:
            raise OptionError(
                f"chunks of {self.tokens} tokens cannot share {self.overlap}; the overlap is lower than the length"
            )

    def document(self, number: int, text: str, tokenizer: TextTokenizer) -> Document:
        """The document of a text that is not blank; errors as `TextTokenizer.encode_whole`."""
        spans = sentences(text) if self.tokens is None else self._tokens(number, text, tokenizer)
        return Document(number, text, spans)

    def _tokens(self, number: int, text: str, tokenizer: TextTokenizer) -> Spans:
        """Chunks of `tokens` tokens; of a character with several tokens, all are in one chunk."""
        assert self.tokens is not None
        offsets = tokenizer.encode_whole(text, "", number).offsets
        assert offsets is not None
        # Of special tokens, the end is 0.
        ends = np.maximum.accumulate(offsets[offsets[:, 1] > 0, 1])
        step, count = self.tokens - self.overlap, len(ends)
        starts = np.arange(0, max(1, count - self.overlap), step)
        limits = np.r_[0, ends]
        spans = np.stack([limits[starts], limits[np.minimum(starts + self.tokens, count)]], axis=1)
        # A character with several tokens leaves chunks without an end of their own.
        spans = spans[(spans[:, 0] < spans[:, 1]) & (np.diff(spans[:, 1], prepend=0) > 0)]
        spans[-1, 1] = len(text)
        return spans


def sentences(text: str) -> Spans:
    """Begin and end of each sentence, in characters; white space belongs to the sentence behind it."""
    return np.array(list(_sentences(text)), np.int64)


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    begin = 0
    last = len(text.rstrip())
    for match in SENTENCE_END.finditer(text, 0, last):
        if not text[begin : match.end()].isspace() and match.end() > begin:
            yield begin, match.end()
            begin = match.end()
    if begin < last:
        yield begin, len(text)


def chunk_ids(name: str, document: Document) -> list[str]:
    """Ids of the chunks of the document `name`: `NAME#BEGIN-END`, places in characters without white space around."""
    return [f"{name}#{begin}-{end}" for begin, end in map(_trimmed, [document.text] * len(document), document.spans)]


def _trimmed(text: str, span: Spans) -> tuple[int, int]:
    begin, end = map(int, span)
    chunk = text[begin:end]
    return begin + len(chunk) - len(chunk.lstrip()), begin + len(chunk.rstrip())
