"""Batches: every text once, within the budget, longest first, padded on the right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.inputs.batching import WINDOW_IMAGES, pad, token_budget_batches, windows
from embedpack.inputs.items import Image, Item, Text, number_items
from embedpack.pack.graph_io import LONG_TEXT

LENGTHS = st.lists(st.integers(1, 600), max_size=60)
BUDGETS = st.integers(1, 1000)
ROWS = st.lists(st.lists(st.integers(0, 250), min_size=1, max_size=12), min_size=1, max_size=8)


@given(lengths=LENGTHS, budget=BUDGETS)
def test_every_text_is_in_one_batch(lengths: list[int], budget: int) -> None:
    batches = [batch.tolist() for batch in token_budget_batches(lengths, budget)]
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))


@given(lengths=LENGTHS, budget=BUDGETS)
def test_batch_stays_within_the_budget_or_is_one_text(lengths: list[int], budget: int) -> None:
    for batch in token_budget_batches(lengths, budget):
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


@given(lengths=LENGTHS, budget=BUDGETS)
def test_longest_texts_come_first(lengths: list[int], budget: int) -> None:
    order = [lengths[index] for batch in token_budget_batches(lengths, budget) for index in batch]
    assert order == sorted(lengths, reverse=True)


@given(lengths=LENGTHS, budget=BUDGETS)
def test_batch_is_full_before_the_next_begins(lengths: list[int], budget: int) -> None:
    batches = list(token_budget_batches(lengths, budget))
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > budget


@given(lengths=st.lists(st.integers(900, 1200), max_size=20), budget=st.integers(1000, 9000))
def test_long_texts_are_not_with_short_ones(lengths: list[int], budget: int) -> None:
    batches = [[lengths[index] for index in batch] for batch in token_budget_batches(lengths, budget)]
    assert sorted(itertools.chain(*batches)) == sorted(lengths)
    for batch in batches:
        assert min(batch) > LONG_TEXT or max(batch) <= LONG_TEXT
        assert len(batch) == 1 or len(batch) * max(batch) <= budget


def test_texts_of_one_length_keep_their_order() -> None:
    assert [batch.tolist() for batch in token_budget_batches([5, 5, 9, 5], 10)] == [[2], [0, 1], [3]]


def test_no_texts_no_batches() -> None:
    assert list(token_budget_batches([], 512)) == []


@given(rows=ROWS, pad_token_id=st.integers(0, 250))
def test_padding_is_on_the_right_and_masked(rows: list[list[int]], pad_token_id: int) -> None:
    feeds = pad([np.array(row, np.int64) for row in rows], pad_token_id)
    longest = max(map(len, rows))
    assert feeds["input_ids"].tolist() == [row + [pad_token_id] * (longest - len(row)) for row in rows]
    assert feeds["attention_mask"].tolist() == [[1] * len(row) + [0] * (longest - len(row)) for row in rows]


@pytest.mark.parametrize("name", ["input_ids", "attention_mask"])
def test_inputs_of_the_graph_are_int64(name: str) -> None:
    assert pad([np.array([1, 2])], 0)[name].dtype == np.int64


@given(inputs=st.lists(st.sampled_from(["text", b"image"]), max_size=60), most=st.integers(1, 30))
def test_windows_hold_every_item_in_order_and_few_at_a_time(inputs: list[str | bytes], most: int) -> None:
    items = list(number_items(inputs, images=True))
    found = list(windows(iter(items), most))
    assert list(itertools.chain(*found)) == items
    for window in found:
        assert 0 < len(window) <= most
        assert sum(isinstance(item, Image) for item in window) <= WINDOW_IMAGES
    for window in found[:-1]:
        full = len(window) == most
        assert full or (
            isinstance(window[-1], Image) and sum(isinstance(item, Image) for item in window) == WINDOW_IMAGES
        )


def test_windows_take_no_more_than_they_give() -> None:
    taken = 0

    def items() -> Iterator[Item]:
        nonlocal taken
        for _ in range(9):
            taken += 1
            yield Text(taken, "text")

    found = windows(items(), 3)
    for count in (3, 6, 9):
        next(found)
        assert taken == count
