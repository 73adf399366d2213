"""Memory plan of a graph: a refusal before it is loaded, with the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedpack import CapacityError, Embedder
from embedpack.engine.memory_plan import BASE_BYTES, batch_bytes, check_load, load_bytes
from embedpack.engine.session import GraphSession
from embedpack.engine.weight_sizes import WeightSizes

MB = 10**6
DECODER = WeightSizes(300 * MB, 0, 350 * MB, 13_056, 0)
ENCODER = WeightSizes(10 * MB, 0, 12 * MB, 1_920, 12)


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """Free memory of the host in bytes."""
    found: dict[str, int | None] = {"bytes": 0}
    for module in ("host.memory", "engine.memory_plan"):
        monkeypatch.setattr(f"embedpack.{module}.available_memory", lambda *_: found["bytes"])
    return found


def test_products_keep_a_copy() -> None:
    assert load_bytes(DECODER, prepared=False) == BASE_BYTES + 300 * MB


def test_prepared_weights_are_mapped() -> None:
    assert load_bytes(DECODER, prepared=True) <= 0.2 * 650 * MB


def test_a_batch_takes_memory_by_its_tokens_where_attention_is_in_pieces() -> None:
    assert batch_bytes(DECODER, 1, 8192) == 8 * batch_bytes(DECODER, 1, 1024) == batch_bytes(DECODER, 8, 1024)


def test_scores_take_the_square_of_the_length() -> None:
    linear = batch_bytes(WeightSizes(0, 0, 0, 1_920, 0), 1, 1)
    for tokens in (128, 512, 8192):
        assert batch_bytes(ENCODER, 1, tokens) - linear * tokens == 12 * 4 * tokens**2


def test_scores_of_blocks_grow_with_the_length_beyond_one_block() -> None:
    linear, blocks = WeightSizes(0, 0, 0, 1_920, 0), WeightSizes(0, 0, 0, 1_920, 0, 12)
    scores = {tokens: batch_bytes(blocks, 1, tokens) - batch_bytes(linear, 1, tokens) for tokens in (512, 1024, 8192)}
    assert scores == {512: 12 * 4 * 512**2, 1024: 12 * 4 * 1024**2, 8192: 8 * 12 * 4 * 1024**2}


def test_too_little_memory_is_told_with_figures(available: dict[str, int | None]) -> None:
    needed = BASE_BYTES + 300 * MB + batch_bytes(DECODER, 1, 256)
    available["bytes"] = needed
    check_load("g", 650 * MB, lambda: DECODER, prepared=False, tokens=256)
    available["bytes"] = needed - 1
    with pytest.raises(CapacityError) as caught:
        check_load("g", 650 * MB, lambda: DECODER, prepared=False, tokens=256)
    assert str(caught.value).startswith(
        f"g: loading it (330 MB) and a batch of 256 tokens (133 MB) needs about {needed // MB} MB of memory, "
        f"{(needed - 1) // MB} MB are available; free some memory, or take a variant with smaller weights"
    )
    check_load("g", 650 * MB, lambda: DECODER, prepared=True, tokens=256)


@pytest.mark.parametrize("found", [None, 10**12])
def test_the_file_is_not_read_where_there_is_plenty(available: dict[str, int | None], found: int | None) -> None:
    available["bytes"] = found

    def weights() -> WeightSizes:
        raise AssertionError

    check_load("g", 650 * MB, weights, prepared=False, tokens=256)


def test_variant_that_does_not_fit_is_not_loaded(
    tiny: Path, available: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(GraphSession, "__init__", load)
    available["bytes"] = 20 * MB
    with pytest.raises(CapacityError, match=r"default-fp32\.onnx: loading it \(30 MB\)"):
        Embedder(tiny, weights="fp32", threads=1)


def test_text_that_does_not_fit_is_told_with_its_tokens(
    tiny: Path, available: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpack.engine.encoder.LONG_TOKENS", 10)
    available["bytes"] = 1000 * MB
    model = Embedder(tiny, weights="fp32", threads=1)
    assert len(model.encode(["cat", "cat " * 30])) == 2
    available["bytes"] = 50_000
    assert len(model.encode("cat")) == 1
    with pytest.raises(CapacityError, match=r"^an input of 32 tokens needs about 0 MB .*; split it, or free"):
        model.encode("cat " * 30)
