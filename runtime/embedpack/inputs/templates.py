"""Templates with their slots filled: texts and token ids by turns.

Neighbouring texts are joined before they are tokenized, as tokenizers merge characters over the borders of slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.score_recipes import Part, Slot

# Characters, or token ids.
Piece: TypeAlias = str | tuple[int, ...]


def fill(parts: Iterable[Part], values: Mapping[str, str]) -> list[Piece]:
    """Pieces of a template with the texts of its slots by name; KeyError for a slot without one."""
    return join(values[part.slot] if isinstance(part, Slot) else part for part in parts)


def join(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces, neighbours of a kind as one; empty ones are left out."""
    return list(_runs(piece for piece in pieces if piece))


def tokenize(tokenizer: TextTokenizer, pieces: Iterable[Piece], limit: int) -> list[npt.NDArray[np.int64]]:
    """Token ids of each piece, int64 [length]; texts are plain characters and lose their end beyond `limit` tokens.

    Raises:
        InputError, CapacityError: as `TextTokenizer.encode`.
    """
    pieces = list(pieces)
    texts = iter(tokenizer.encode_pieces([piece for piece in pieces if isinstance(piece, str)], limit))
    return [next(texts).ids if isinstance(piece, str) else np.array(piece, np.int64) for piece in pieces]


def shortened(tokenizer: TextTokenizer, text: str, limit: int | None) -> str:
    """The text of the first `limit` tokens of a text; None: the whole text. Errors as of `tokenize`."""
    if limit is None:
        return text
    (tokens,) = tokenizer.encode_pieces([text], limit)
    return tokenizer.decode(tokens.ids.tolist()) if tokens.truncated else text


def _runs(pieces: Iterable[Piece]) -> Iterator[Piece]:
    for is_text, run in groupby(pieces, lambda piece: isinstance(piece, str)):
        if is_text:
            yield "".join(piece for piece in run if isinstance(piece, str))
        else:
            yield tuple(chain.from_iterable(piece for piece in run if not isinstance(piece, str)))
