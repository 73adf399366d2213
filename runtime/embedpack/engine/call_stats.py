"""Progress bar and truncation warning of a call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType

from embedpack.inputs.processor import ModelInput
from embedpack.progress import Progress

logger = logging.getLogger("embedpack")


class CallStats:
    """Progress bar over all runs of a call, and one warning at its end for truncated texts; `total` None: unknown."""

    def __init__(self, total: int | None) -> None:
        self._progress = Progress("embedding", total)
        self._texts = 0
        self._truncated = 0

    def __enter__(self) -> CallStats:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if error is None and self._truncated:
            logger.warning(
                "%d of %d texts were longer than the model's limit and were cut", self._truncated, self._texts
            )

    def add(self, inputs: Sequence[ModelInput]) -> None:
        """Count inputs that are about to be run."""
        self._texts += sum(model_input.image is None for model_input in inputs)
        self._truncated += sum(model_input.truncated for model_input in inputs)

    def finish(self, items: int) -> None:
        """Count items whose vectors are computed."""
        self._progress.advance(items)
