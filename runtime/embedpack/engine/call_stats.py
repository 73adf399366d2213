"""Counts of a call: progress, truncated texts, empty texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from embedpack.inputs.items import Item, Text, shortened
from embedpack.inputs.processor import ModelInput
from embedpack.progress import Progress

logger = logging.getLogger("embedpack")

# Work of an image, and of a text beside its characters, in characters of text.
IMAGE_WORK = 4000
TEXT_WORK = 16
# Of longer texts the tokens beyond the limit of the model are cut.
CHARACTERS_PER_TOKEN = 4
# Truncated texts that are remembered by id, and those that a message names.
MAX_LISTED = 1000
SHOWN = 5


class CallStats(Progress):
    """Progress over all runs of a call, and counts of its texts.

    Attributes:
        texts: number of texts that have been processed.
        truncated: number of those that were longer than the limit of the model or the prompt.
        truncated_ids: ids of the first MAX_LISTED of them.
        ids: ids of the inputs of a part of the call by position; None: the positions are the ids.
        empty: number of texts without any token; they are not among `texts`.
    """

    def __init__(
        self, max_tokens: int, total: int | None, work: int | None = None, *, label: str = "embedding"
    ) -> None:
        """Start at nothing; `total` is the number of items, `work` the sum of their `work_of`; None: unknown."""
        super().__init__(label, total, work)
        self.max_tokens = max_tokens
        self.texts = 0
        self.truncated = 0
        self.truncated_ids: list[str] = []
        self._limits: set[int] = set()
        self.ids: Sequence[str] | None = None
        self.empty = 0

    def work_of(self, item: Item) -> int:
        """Estimate of the time that an item takes, in characters of text."""
        if not isinstance(item, Text):
            return IMAGE_WORK
        return TEXT_WORK + min(len(item.text), CHARACTERS_PER_TOKEN * self.max_tokens)

    def add(self, items: Sequence[Item], inputs: Sequence[ModelInput], limit: int) -> None:
        """Count inputs that are about to be run, of these items; texts were cut to `limit` tokens."""
        cut = [self.name(item.number) for item, one in zip(items, inputs, strict=True) if one.truncated]
        self.add_texts(sum(model_input.image is None for model_input in inputs), cut, limit)

    def add_texts(self, texts: int, cut: Sequence[str], limit: int) -> None:
        """Count texts; those with the ids `cut` were cut to `limit` tokens."""
        self.texts += texts
        self.truncated += len(cut)
        if cut:
            self._limits.add(limit)
        self.truncated_ids += cut[: MAX_LISTED - len(self.truncated_ids)]

    def name(self, number: int) -> str:
        """Id of an input of this part of the call, by its position."""
        return str(number) if self.ids is None else self.ids[number]

    @property
    def limit(self) -> int:
        """Tokens that texts were cut to, the highest of several prompts; without cut texts the model's limit."""
        return max(self._limits, default=self.max_tokens)

    def truncation(self, instead: str) -> str:
        """Message about truncated texts; `instead` is the option that refuses them."""
        limits = " or ".join(map(str, sorted(self._limits)))
        names = ", ".join(map(shortened, self.truncated_ids[:SHOWN]))
        more = ", ..." if self.truncated > SHOWN else ""
        return (
            f"Truncated {self.truncated} of {self.texts} texts to {limits} tokens: {names}{more} "
            f"({instead} stops instead)"
        )

    def log(self) -> None:
        """Log one warning for truncated and one for empty texts, if there were any."""
        if self.truncated:
            logger.warning("%s", self.truncation("on_long='error'"))
        if self.empty:
            logger.warning(
                "%d of %d texts are empty (on_empty='error' stops instead)", self.empty, self.empty + self.texts
            )
