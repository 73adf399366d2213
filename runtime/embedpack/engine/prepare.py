"""Preparing a variant for this host: its graphs with the copies of weights that products read, and the fastest batches.

See `embedpack.engine.prepared` for where this lies and when it is used. A graph is written to a temporary folder,
loaded from there, compared bit by bit with the pack's own, and only then gets its name.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from embedpack.engine.encoder import TOKEN_BUDGET
from embedpack.engine.golden import TEXTS, golden_image
from embedpack.engine.loading import PackGraph, open_adapters, open_processor
from embedpack.engine.memory_plan import check_load
from embedpack.engine.prepared import (
    FILES,
    GRAPH,
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    RECORD,
    Identity,
    PreparedGraph,
    Record,
    check_private,
    find_prepared,
    read_prepared,
)
from embedpack.engine.session import Adapter, GraphSession, check_onnxruntime
from embedpack.engine.token_budgets import measure_budgets
from embedpack.engine.weight_sizes import WeightSizes
from embedpack.errors import CapacityError, PackError
from embedpack.inputs.processor import Processor
from embedpack.inputs.vision_layout import vision_feeds
from embedpack.pack.folder import Pack, describe_file
from embedpack.pack.graph_io import IMAGE_EMBEDS, SENTENCE_EMBEDDING
from embedpack.storage.atomic import atomic_file, disk_errors

logger = logging.getLogger("embedpack")

STAGING = ".preparing-"
# What a killed run left is removed by the next one after that time.
LEFTOVER_SECONDS = 86_400.0
# The graph itself, alignment and headers.
DISK_MARGIN = 1.05
Feeds = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class PreparedFile:
    """What became of one graph.

    Attributes:
        graph: its name in the pack.
        folder: in the cache.
        bytes: of its files there; 0: the graph cannot be saved.
        written: now; else they were there.
        seconds: that it took.
    """

    graph: str
    folder: str
    bytes: int
    written: bool
    seconds: float


@dataclass(frozen=True)
class PreparedVariant:
    """What became of a variant: its graphs, and the batches that are fastest with that many threads."""

    variant: str
    graphs: tuple[PreparedFile, ...]
    threads: int
    token_budget: int
    tokens_per_second: dict[int, float]


@dataclass(frozen=True)
class _Probe:
    """Runs whose results tell whether two sessions compute the same."""

    output: str
    feeds: Sequence[Feeds]
    adapter: Adapter | None = None

    def results(self, session: GraphSession) -> list[bytes]:
        return [session.run([self.output], feeds, self.adapter)[0].tobytes() for feeds in self.feeds]


def disk_bytes(weights: WeightSizes) -> int:
    """Bytes on disk of a prepared graph: its weights, and the copies that products read."""
    if not weights.can_be_saved:
        return 0
    return int(DISK_MARGIN * (weights.total + weights.matmul_bytes))


def graphs_of(pack: Pack, variant: str) -> list[PackGraph]:
    """The graphs that a variant runs on this CPU, the text graph first."""
    chosen = pack.manifest.variants[variant]
    graphs = [PackGraph.of(pack, chosen)]
    if pack.manifest.image is not None:
        graphs.append(PackGraph.of(pack, pack.manifest.vision[chosen.weights]))
    return graphs


def prepare_variant(pack: Pack, variant: str, threads: int, cache: Path) -> PreparedVariant:
    """Prepare a variant; graphs that are prepared already, and whole, are kept.

    Args:
        pack: the pack.
        variant: one of its variants.
        threads: with which batches are measured.
        cache: where it is written; made if it is missing.

    Raises:
        PackError: a file of the pack is missing or changed, or others may write to the cache.
        CapacityError: it does not fit the disk or the memory.
        InputError: the cache cannot be written.
    """
    chosen = pack.manifest.variants[variant]
    check_onnxruntime(chosen.min_onnxruntime)
    processor = open_processor(pack)
    adapter = next(iter(open_adapters(pack, chosen).values()), None)
    _make_cache(cache)
    probes = [_text_probe(processor, adapter), *([] if processor.image is None else [_vision_probe(processor)])]
    done = []
    for graph, probe in zip(graphs_of(pack, variant), probes, strict=True):
        begin = time.perf_counter()
        found = _intact(cache, graph.identity)
        prepared = found or _write(graph, probe, threads, cache)
        size = sum(entry.bytes for entry in prepared.record.files.values())
        seconds = time.perf_counter() - begin
        done.append((prepared, PreparedFile(graph.name, str(prepared.folder), size, found is None, seconds)))
    text = graphs_of(pack, variant)[0]
    session = text.open(threads, cache, TOKEN_BUDGET).session
    times = measure_budgets(session, processor, pack.manifest.text.vocabulary, adapter)
    _add_budget(done[0][0], threads, times.best)
    return PreparedVariant(variant, tuple(item for _, item in done), threads, times.best, times.tokens_per_second)


def _add_budget(prepared: PreparedGraph, threads: int, budget: int) -> None:
    """Write the best budget of a text graph down beside it."""
    budgets = prepared.record.token_budgets | {str(threads): budget}
    _write_record(prepared.folder, msgspec.structs.replace(prepared.record, token_budgets=budgets))


def _make_cache(cache: Path) -> None:
    with disk_errors(cache):
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    try:
        check_private(cache)
    except PackError as cause:
        raise PackError(f"{cause}; make it yours alone (chmod go-w), or choose another folder with --cache") from cause
    for left in cache.glob(f"{STAGING}*"):
        if time.time() - left.stat().st_mtime > LEFTOVER_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _intact(cache: Path, identity: Identity) -> PreparedGraph | None:
    """What is prepared already, if every byte of it is as it was written."""
    found = find_prepared(cache, identity)
    if found is None:
        return None
    for name, entry in found.record.files.items():
        if describe_file(found.folder / name) != entry:
            logger.warning("%s: changed since it was prepared; it is written again", found.folder / name)
            return None
    return found


def _write(graph: PackGraph, probe: _Probe, threads: int, cache: Path) -> PreparedGraph:
    """Write a prepared graph and prove that it computes what the pack's own does."""
    path, weights = graph.path, graph.weights
    needed, free = disk_bytes(weights), shutil.disk_usage(cache).free
    if needed > free:
        raise CapacityError(
            f"{cache}: {graph.name} needs about {needed // 10**6} MB there, {free // 10**6} MB are free; free some "
            "space, or choose another folder with --cache"
        )
    check_load(str(path), weights.total, lambda: weights, prepared=False, tokens=TOKEN_BUDGET)
    _check_weights(graph)
    with disk_errors(cache), tempfile.TemporaryDirectory(dir=cache, prefix=STAGING) as staging:
        folder = Path(staging) / "graph"
        folder.mkdir(mode=PRIVATE_FOLDER)
        names = FILES if weights.can_be_saved else ()
        if names:
            expected = probe.results(GraphSession(path, threads, save_to=folder / GRAPH))
            if probe.results(GraphSession(folder / GRAPH, threads)) != expected:
                raise PackError(
                    f"{path}: its prepared form gives other vectors; it is not kept, the pack works without it"
                )
        for name in names:
            (folder / name).chmod(PRIVATE_FILE)
        files = {name: describe_file(folder / name) for name in names}
        _write_record(folder, Record(identity=graph.identity, files=files, token_budgets={}))
        return _publish(folder, cache, graph.identity)


def _publish(folder: Path, cache: Path, identity: Identity) -> PreparedGraph:
    target = cache / identity.key
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    try:
        os.rename(folder, target)
    except FileExistsError:
        logger.info("%s: another process has prepared it meanwhile", target)
    return read_prepared(target, identity)


def _write_record(folder: Path, record: Record) -> None:
    with atomic_file(folder / RECORD, PRIVATE_FILE) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


def _check_weights(graph: PackGraph) -> None:
    """Refuse weights that are not those of the manifest: what is prepared lives on when the pack is gone."""
    for name in graph.external_data:
        found, expected = describe_file(graph.pack.path(name)), graph.pack.manifest.files[name]
        if found != expected:
            raise PackError(
                f"{graph.pack.folder / name}: expected sha256 {expected.sha256[:16]}…, found {found.sha256[:16]}…; "
                "copy the pack again"
            )


def _text_probe(processor: Processor, adapter: Adapter | None) -> _Probe:
    """Each text alone, and all of them together."""
    items = processor.process(processor.items(TEXTS), "")
    feeds = [processor.collate(batch, []) for batch in (*([item] for item in items), items)]
    return _Probe(SENTENCE_EMBEDDING, feeds, adapter)


def _vision_probe(processor: Processor) -> _Probe:
    (item,) = processor.process(processor.items([golden_image()]), "")
    assert item.image is not None
    assert processor.image is not None
    return _Probe(IMAGE_EMBEDS, [vision_feeds(item.image, processor.image)])
