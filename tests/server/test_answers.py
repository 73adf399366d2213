"""Answers in parts: the same JSON as in one, and the event loop is free between them."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from embedpack.server import answers
from embedpack.server.jobs import JobResult
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack.server.vectors import VectorFormat
from tests.helpers.tiny_pack import TINY_PACK


@pytest.fixture(scope="module")
def form() -> VectorFormat:
    packs = ServedPacks.open(ServeSettings(packs=(PackSettings(name="tiny", folder=TINY_PACK),)))
    codebook = packs.packs["tiny"].codebooks["default"].single
    assert codebook is not None
    return VectorFormat("float", 32, 1.0, codebook)


@pytest.mark.parametrize("multi", [False, True])
def test_an_answer_does_not_depend_on_its_parts(
    form: VectorFormat, monkeypatch: pytest.MonkeyPatch, multi: bool
) -> None:
    values = np.random.default_rng(1).normal(size=(7, 3, 32))
    unit = (values / np.linalg.norm(values, axis=2, keepdims=True)).astype(np.float32)
    vectors = list(unit if multi else unit[:, 0])
    result, turns = JobResult(vectors, 5, {}), 0

    async def encode() -> bytes:
        nonlocal turns
        task = asyncio.create_task(answers.encode_answer("tiny", result, form, multi=multi))
        turns = 0
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        return task.result()

    whole = asyncio.run(encode())
    assert turns <= 2
    monkeypatch.setattr(answers, "PART_VALUES", 2 * vectors[0].size)
    assert asyncio.run(encode()) == whole
    assert turns >= 4
    data = json.loads(whole)["data"]
    assert [row["index"] for row in data] == list(range(7))
