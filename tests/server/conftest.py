"""Fixtures of the server's tests: an application over the tiny pack, whose engine can be replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedpack import Embedder
from embedpack.engine.encoder import Batch, Computed, Encoder
from embedpack.inputs.processor import Processor
from embedpack.pack.input_recipes import QwenImage
from embedpack.server.api_keys import ApiKeys
from embedpack.server.engine_thread import EngineThread
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from tests.helpers.server import Running, start_app
from tests.helpers.tiny_pack import PACK_2_0, TINY_PACK, TINY_RERANKER

WEIGHTS = "fp32"
VARIANT = f"default-{WEIGHTS}"
IMAGE = QwenImage(
    hidden=8,
    patch_size=14, temporal_patch_size=2, merge_size=2, window_size=4, min_pixels=784, max_pixels=7840,
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), tokens_before=(1,), token=2, tokens_after=(3,), pooled_before=0,
    pooled_after=0,
)  # fmt: skip


KINDS = ServeSettings(
    packs=(
        PackSettings(name="pairs", folder=TINY_RERANKER, weights="fp32"),
        PackSettings(name="tokens", folder=PACK_2_0),
        PackSettings(name="vectors", folder=TINY_PACK, weights="fp32"),
    ),
    threads=1,
)


@dataclass
class GatedEncoder:
    """An encoder that waits for `gate` before it computes, and records the number of rows of each batch it is given."""

    inner: Encoder
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)

    @property
    def processor(self) -> Processor:
        return self.inner.processor

    @property
    def token_budget(self) -> int:
        return self.inner.token_budget

    def compute(self, batches: Iterator[Batch], output: str, adapter: str | None = None) -> Iterator[Computed]:
        self.entered.set()
        assert self.gate.wait(60)

        def recorded() -> Iterator[Batch]:
            for batch in batches:
                self.batches.append(len(batch.rows))
                yield batch

        return self.inner.compute(recorded(), output, adapter)


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The tiny pack; one thread, as the server of the tests."""
    return Embedder(TINY_PACK, weights=WEIGHTS, threads=1)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts an application over the tiny pack as `tiny`, with settings, another encoder, changed packs, or keys."""
    engines: list[EngineThread] = []

    def run(
        encoder: Any = None, packs: ServedPacks | None = None, api_keys: Path | None = None, **options: Any
    ) -> Running:
        pack = PackSettings(name="tiny", folder=TINY_PACK, weights=WEIGHTS)
        settings = replace(ServeSettings(packs=(pack,), threads=1), **options)
        served = packs or ServedPacks.open(settings)
        load = served.load if encoder is None else lambda: {("tiny", VARIANT): encoder}
        running = start_app(settings, served, load, None if api_keys is None else ApiKeys(api_keys))
        engines.append(running.engine)
        return running

    yield run
    for engine in engines:
        engine.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """An application over the tiny pack that tests only call."""
    pack = PackSettings(name="tiny", folder=TINY_PACK, weights=WEIGHTS)
    settings = ServeSettings(packs=(pack,), threads=1)
    packs = ServedPacks.open(settings)
    running = start_app(settings, packs, packs.load, None)
    yield running
    running.engine.stop()


@pytest.fixture
def images(start: Callable[..., Running], embedder: Embedder) -> Running:
    """An application over a pack that reads images; its graph is that of texts, so images are only read."""
    pack = PackSettings(name="tiny", folder=TINY_PACK, weights="fp32")
    packs = ServedPacks.open(ServeSettings(packs=(pack,), threads=1))
    served = packs.packs["tiny"]
    manifest = msgspec.structs.replace(served.manifest, image=IMAGE)
    served = replace(served, pack=replace(served.pack, manifest=manifest))
    encoder = embedder._encoder
    names = {"compute": encoder.compute, "token_budget": encoder.token_budget}
    reading = type("Reading", (), {"processor": replace(encoder.processor, image=IMAGE), **names})
    return start(reading(), ServedPacks({"tiny": served}, 1))


@pytest.fixture(scope="module")
def kinds() -> Iterator[Running]:
    """An application over a reranker, a pack with multi-vectors, and one without."""
    packs = ServedPacks.open(KINDS)
    running = start_app(KINDS, packs, packs.load, None)
    yield running
    running.engine.stop()
