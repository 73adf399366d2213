"""Batches by token budget: texts of similar length together, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from embedpack.inputs.items import Image, Item
from embedpack.pack.graph_io import ATTENTION_MASK, INPUT_IDS, LONG_TEXT

# Items processed ahead: enough to find others of the same length, few enough to stay in memory. An image takes some
# 15 MB and seldom shares a batch.
WINDOW_ITEMS = 8192
WINDOW_IMAGES = 8


def windows(items: Iterable[Item], size: int | None = None) -> Iterator[list[Item]]:
    """Consecutive items that fit the memory: at most `size` (WINDOW_ITEMS), with at most WINDOW_IMAGES images."""
    size = WINDOW_ITEMS if size is None else size
    window: list[Item] = []
    images = 0
    for item in items:
        window.append(item)
        images += isinstance(item, Image)
        if len(window) == size or images == WINDOW_IMAGES:
            yield window
            window, images = [], 0
    if window:
        yield window


def token_budget_batches(lengths: Sequence[int], budget: int) -> Iterator[npt.NDArray[np.intp]]:
    """Group texts so that rows x longest row stays within a budget; a longer text is a batch of its own.

    Texts of more than LONG_TEXT tokens are not in a batch with shorter ones, which graphs may compute another way.

    Yields indices of the texts of one batch, longest first over all batches, so that the first has the memory peak.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    rows = np.array(order, np.intp)
    long = sum(length > LONG_TEXT for length in lengths)
    start = 0
    while start < len(order):
        stop = start + max(1, budget // lengths[order[start]])
        if start < long:
            stop = min(stop, long)
        yield rows[start:stop]
        start = stop


def one_by_one(rows: npt.NDArray[np.intp], alone: Sequence[bool]) -> Iterator[npt.NDArray[np.intp]]:
    """A batch without the inputs that are to be `alone`, if there are others, and each of them by itself."""
    if not any(alone):
        yield rows
        return
    mask = np.array([alone[row] for row in rows], np.bool_)
    if not mask.all():
        yield rows[~mask]
    yield from rows[mask][:, None]


def pad(rows: Sequence[npt.NDArray[np.int64]], pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """Right-padded `input_ids` and `attention_mask`, both int64 [batch, longest]."""
    shape = (len(rows), max(map(len, rows)))
    input_ids = np.empty(shape, np.int64)
    input_ids.fill(pad_token_id)
    attention_mask = np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        attention_mask[index, : len(row)] = 1
    return {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask}


def mark_index(marks: Sequence[npt.NDArray[np.int64] | None], lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    """Row and column of each mark, int64 [rows x most marks, 2]; None: that of the last token.

    Rows with fewer marks than others repeat their last one.
    """
    places = [np.array([length - 1]) if row is None else row for row, length in zip(marks, lengths, strict=True)]
    most = max(map(len, places))
    columns = np.concatenate([np.pad(row, (0, most - len(row)), mode="edge") for row in places])
    return np.stack([np.repeat(np.arange(len(places)), most), columns], axis=1).astype(np.int64)
