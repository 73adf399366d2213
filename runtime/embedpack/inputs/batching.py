"""Batches by token budget: texts of like length together, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.inputs.images import is_image
from embedpack.pack.graph_io import ATTENTION_MASK, INPUT_IDS

# Items prepared ahead: enough to find neighbours of the same length, few enough to stay in memory. An image takes some
# 15 MB, and its neighbours seldom fit into one batch with it anyway.
WINDOW = 8192
IMAGE_WINDOW = 8


def windows(items: Iterable[Any], most: int | None = None) -> Iterator[list[Any]]:
    """Items that follow each other, few enough to be held at a time: IMAGE_WINDOW images, or `most` (WINDOW) items."""
    most = WINDOW if most is None else most
    window: list[Any] = []
    images = 0
    for item in items:
        window.append(item)
        images += is_image(item)
        if len(window) == most or images == IMAGE_WINDOW:
            yield window
            window, images = [], 0
    if window:
        yield window


def token_budget_batches(lengths: Sequence[int], budget: int) -> Iterator[npt.NDArray[np.intp]]:
    """Group texts so that rows x longest row stays within a budget; a longer text is a batch of its own.

    Args:
        lengths: tokens of each text.
        budget: most tokens of one batch, padding included.

    Yields:
        Indices of the texts of one batch, longest first over all batches: the first batch shows the peak of memory.
    """
    order = np.argsort(-np.asarray(lengths, np.intp), kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // lengths[order[start]])
        yield order[start : start + rows]
        start += rows


def pad(rows: Sequence[npt.NDArray[np.int64]], pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """Right-padded `input_ids` and `attention_mask`, both int64 [batch, longest]."""
    shape = (len(rows), max(map(len, rows)))
    input_ids = np.full(shape, pad_token_id, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        attention_mask[index, : len(row)] = 1
    return {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask}
