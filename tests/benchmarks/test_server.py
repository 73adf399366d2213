"""The benchmark of the server, on the tiny pack."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from benchmarks.host import server
from benchmarks.host.http_client import served
from embedpack.errors import EmbedpackError
from tests.helpers.tiny_pack import TINY_PACK


def test_it_compares_server_and_engine() -> None:
    options = argparse.Namespace(pack=TINY_PACK, variant="default-fp32", rounds=1, clients=4, threads=1, seed=1)
    results = server.run(options)
    assert results["one_text"]["engine"]["p50"] > 0
    assert results["clients"]["max_1_minus_cosine"] <= 1e-6
    printed = server.table(results)
    assert "overhead of the server, p50:" in printed
    assert f"{results['clients']['requests']} requests, 512 texts" in printed


def test_requests_have_all_texts_in_their_order() -> None:
    slices = server._slices(512, 3)
    assert np.concatenate(slices).tolist() == list(range(512))
    assert {len(rows) for rows in slices[:-1]} <= set(range(1, server.MAX_TEXTS + 1))


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(EmbedpackError, match=r"the server did not start: .*not a pack"),
        served(str(tmp_path), "fp32", "default", 1),
    ):
        pass
