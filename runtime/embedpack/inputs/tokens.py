"""Tokens of a text: ids, special tokens, places in the text, and the cut at a limit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

Direction = Literal["right", "left"]


@dataclass(frozen=True)
class Tokens:
    """Token ids of one text.

    Attributes:
        ids: token ids, int64 [length].
        special: True for tokens that no text gave, bool [length].
        truncated: whether tokens were cut off.
        offsets: begin and end of each token in the text, in characters, int64 [length, 2]; 0 and 0 for special tokens
            and those of a prompt. Tokens of one character, such as its bytes, have the same. None: not asked for.
    """

    ids: npt.NDArray[np.int64]
    special: npt.NDArray[np.bool_]
    truncated: bool = False
    offsets: npt.NDArray[np.int64] | None = None

    def cut(self, limit: int, direction: Direction) -> Tokens:
        """At most `limit` tokens, special tokens included: the text loses its end, or its beginning ("left")."""
        if len(self.ids) <= limit:
            return self
        kept = max(0, limit - int(self.special.sum()))
        text = np.flatnonzero(~self.special)
        rows = np.ones(len(self.ids), np.bool_)
        rows[text[kept:] if direction == "right" else text[: len(text) - kept]] = False
        offsets = None if self.offsets is None else self.offsets[rows]
        return Tokens(self.ids[rows], self.special[rows], truncated=True, offsets=offsets)

    def end_of_first_beyond(self, limit: int) -> float:
        """End of the first token that `cut` takes from the end, in characters; infinite without one."""
        assert self.offsets is not None
        text = np.flatnonzero(~self.special)
        kept = limit - int(self.special.sum())
        return float(self.offsets[text[kept], 1]) if len(text) > kept else float("inf")

    def behind(self, prompt: int, leading: int) -> Tokens:
        """The same tokens with places in the text alone: behind a prompt and `leading` characters that were dropped."""
        if self.offsets is None:
            return self
        of_text = self.offsets[:, 1] > prompt
        moved = np.maximum(self.offsets - prompt, 0) + leading
        return replace(self, offsets=np.where(of_text[:, None], moved, 0))

    def with_special(self, ids: tuple[int, ...], place: int) -> Tokens:
        """The tokens with special ones inserted before the token at `place`, or behind all."""
        if not ids:
            return self
        rows = np.full(len(ids), min(place, len(self.ids)))
        offsets = None if self.offsets is None else np.insert(self.offsets, rows, 0, axis=0)
        special = np.insert(self.special, rows, values=True)
        return Tokens(np.insert(self.ids, rows, ids), special, self.truncated, offsets)


def tokens_of(encoding: Encoding, *, offsets: bool) -> Tokens:
    """Tokens of a result of the tokenizers library, with their places if `offsets`."""
    ids, special = np.array(encoding.ids, np.int64), np.array(encoding.special_tokens_mask, np.bool_)
    if not offsets:
        return Tokens(ids, special)
    places = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(encoding))
    return Tokens(ids, special, offsets=places.reshape(-1, 2))
