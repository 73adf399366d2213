"""Texts through a graph: tokenise, sort by length, batch, run, restore the order."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedpack.batching import pad, token_budget_batches
from embedpack.errors import InputError
from embedpack.progress import Progress
from embedpack.session import GraphSession
from embedpack.tokenizer import TextTokenizer, Tokens, check_texts

logger = logging.getLogger("embedpack")

# Measured on a 384-wide encoder: padding and cache misses cost more than small matrices do.
TOKEN_BUDGET = 256
# Texts tokenised ahead: enough to find neighbours of the same length, few enough to stay in memory.
WINDOW = 8192

OnLongText = Literal["truncate", "error"]


class TextEncoder:
    """One graph with its tokenizer."""

    def __init__(
        self, session: GraphSession, tokenizer: TextTokenizer, pad_token_id: int, *, warn_when_cut: bool = True
    ) -> None:
        self._warn_when_cut = warn_when_cut
        self._session = session
        self._tokenizer = tokenizer
        self._pad_token_id = pad_token_id

    def run(
        self, texts: Sequence[str], *, prompt: str, output: str, on_long: OnLongText = "truncate"
    ) -> npt.NDArray[np.generic]:
        """Compute one output of the graph for every text, in the order of the texts.

        Args:
            texts: at least one text.
            prompt: prefix of every text.
            output: name of the graph's output.
            on_long: whether a text over the limit of tokens is cut (and a warning logged) or refused.

        Returns:
            Array [len(texts), ...] of the output's type.

        Raises:
            InputError: a text cannot be used (see `TextTokenizer.encode`), or is too long and `on_long` is "error".
        """
        result: npt.NDArray[np.generic] | None = None
        with Progress("embedding", len(texts)) as progress:
            for rows, feeds in self.batches(texts, prompt=prompt, on_long=on_long):
                (values,) = self._session.run([output], feeds)
                if result is None:
                    result = np.empty((len(texts), *values.shape[1:]), values.dtype)
                result[rows] = values
                progress.advance(len(rows))
        if result is None:
            raise InputError("no texts: the list is empty")
        return result

    def batches(
        self,
        texts: Sequence[str],
        *,
        prompt: str,
        on_long: OnLongText = "truncate",
        token_budget: int = TOKEN_BUDGET,
    ) -> Iterator[tuple[npt.NDArray[np.intp], dict[str, npt.NDArray[np.int64]]]]:
        """The texts as inputs of the graph: indices of the texts of a batch, and its `input_ids` and `attention_mask`.

        Raises:
            InputError: see `run`.
        """
        # All of them first: an unusable text at the end must not cost the work on those before it.
        check_texts(texts)
        cut = 0
        for start in range(0, len(texts), WINDOW):
            tokens = self._tokenizer.encode(texts[start : start + WINDOW], prompt, first=start)
            cut += sum(item.cut for item in tokens)
            if on_long == "error":
                _refuse_cut(tokens, start, self._tokenizer.max_tokens)
            for rows in token_budget_batches([len(item.ids) for item in tokens], token_budget):
                yield start + rows, pad([tokens[row].ids for row in rows], self._pad_token_id)
        if cut and self._warn_when_cut:
            logger.warning("%d of %d texts were longer than the model's limit and were cut", cut, len(texts))


def _refuse_cut(tokens: Sequence[Tokens], first: int, limit: int) -> None:
    for index, item in enumerate(tokens, first):
        if item.cut:
            raise InputError(
                f"text {index} is longer than the model's limit of {limit} tokens; "
                "split it, or allow a cut with on_long='truncate'"
            )
