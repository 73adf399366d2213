"""Progress bar and truncation warning of a call."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from embedpack.inputs.processor import ModelInput
from embedpack.progress import Progress

logger = logging.getLogger("embedpack")


class CallStats(Progress):
    """Progress bar over all runs of a call, and one warning at its end for truncated texts; `total` None: unknown."""

    def __init__(self, total: int | None) -> None:
        super().__init__("embedding", total)
        self._texts = 0
        self._truncated = 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        super().__exit__(kind)
        if kind is None and self._truncated:
            logger.warning(
                "%d of %d texts were longer than the model's limit and were cut", self._truncated, self._texts
            )

    def add(self, inputs: Sequence[ModelInput]) -> None:
        """Count inputs that are about to be run."""
        self._texts += sum(model_input.image is None for model_input in inputs)
        self._truncated += sum(model_input.truncated for model_input in inputs)
