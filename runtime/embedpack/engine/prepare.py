"""Preparation of a variant for this host: prepacked graphs and the fastest token budget.

`embedpack.engine.prepared` defines their cache. A prepacked graph is written to a temporary folder, loaded from there
and compared bit by bit with the graph of the pack before it is renamed to its final name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embedpack.engine.encoder import TOKEN_BUDGET
from embedpack.engine.golden import TEXTS
from embedpack.engine.golden_image import golden_image
from embedpack.engine.loading import PackGraph, open_adapters, open_processor
from embedpack.engine.memory_plan import check_load
from embedpack.engine.packed_alignment import align_places
from embedpack.engine.prepared import (
    FILES,
    GRAPH,
    RECORD,
    Identity,
    PreparedGraph,
    Record,
    check_prepared,
    read_prepared,
)
from embedpack.engine.session import SAVED_WEIGHTS, Adapter, Feeds, GraphSession, Session, check_onnxruntime
from embedpack.engine.support import check_support
from embedpack.engine.token_budgets import TimedGraph, measure_budgets
from embedpack.engine.weight_sizes import WeightSizes
from embedpack.errors import CapacityError, PackError
from embedpack.host.user_cache import CACHE_FOLDER, PRIVATE_FILE, PRIVATE_FOLDER, check_folders_above, check_private
from embedpack.inputs.processor import Processor
from embedpack.inputs.vision_layout import vision_feeds
from embedpack.pack.digests import describe_file
from embedpack.pack.folder import Pack
from embedpack.pack.graph_io import IMAGE_EMBEDS, SENTENCE_EMBEDDING
from embedpack.pack.heads import main_output
from embedpack.storage.atomic import atomic_file, disk_errors
from embedpack.storage.temporary import remove_leftovers, temporary_folder

logger = logging.getLogger("embedpack")

# Attempts to give a folder its name while other processes do the same.
MAX_ATTEMPTS = 5
# Factor for the graph itself, alignment and headers.
DISK_MARGIN = 1.05


@dataclass(frozen=True)
class PreparedFile:
    """A prepacked graph in the cache; 0 bytes: it cannot be saved. `written` is false if it was found there."""

    graph: str
    folder: str
    bytes: int
    written: bool
    seconds: float


@dataclass(frozen=True)
class PreparedVariant:
    """Graphs of a prepared variant, the text graph first, and its speeds by token budget on `threads` threads."""

    variant: str
    graphs: tuple[PreparedFile, ...]
    threads: int
    token_budget: int
    tokens_per_second: dict[int, float]


@dataclass(frozen=True)
class _Probe:
    """Runs that compare two sessions of a graph bit by bit."""

    output: str
    feeds: Sequence[Feeds]
    adapter: Adapter | None = None

    def outputs(self, session: Session) -> list[bytes]:
        return [session.run([self.output], feeds, self.adapter)[0].tobytes() for feeds in self.feeds]


def disk_bytes(sizes: WeightSizes) -> int:
    """Size of a prepacked graph on disk, its weights and their packed copies; 0: it cannot be saved."""
    return int(DISK_MARGIN * (sizes.total + sizes.matmul_bytes)) if sizes.can_be_saved else 0


def graphs_of(pack: Pack, variant: str) -> list[PackGraph]:
    """Graphs of a variant, the text graph first."""
    chosen = pack.manifest.variants[variant]
    graphs = [PackGraph.of(pack, chosen)]
    if pack.manifest.image is not None:
        graphs.append(PackGraph.of(pack, pack.manifest.vision[chosen.weights]))
    return graphs


def prepare_variant(pack: Pack, variant: str, threads: int, cache: Path) -> PreparedVariant:
    """Write the prepacked graphs of a variant and measure its token budgets; intact graphs in the cache are kept.

    PackError if a file of the pack is missing or changed, or others may write to the cache; CapacityError if a graph
    does not fit the disk or the memory; InputError if the cache cannot be written.
    """
    chosen = pack.manifest.variants[variant]
    check_support(pack, chosen)
    check_onnxruntime(chosen.min_onnxruntime)
    processor = open_processor(pack)
    adapter = next(iter(open_adapters(pack, chosen).values()), None)
    _make_cache(cache)
    output = main_output(pack.manifest)
    probes = [_text_probe(processor, output, adapter), *([] if processor.image is None else [_vision_probe(processor)])]
    graphs = graphs_of(pack, variant)
    files = [_prepare_graph(graph, probe, threads, cache) for graph, probe in zip(graphs, probes, strict=True)]
    session = graphs[0].open(threads, cache).session
    times = measure_budgets(TimedGraph(session, output, processor, adapter), pack.manifest.text.vocabulary)
    prepared = read_prepared(Path(files[0].folder), graphs[0].identity)
    budgets = prepared.record.token_budgets | {str(threads): times.best}
    _write_record(prepared.folder, msgspec.structs.replace(prepared.record, token_budgets=budgets))
    return PreparedVariant(variant, tuple(files), threads, times.best, times.tokens_per_second)


def _prepare_graph(graph: PackGraph, probe: _Probe, threads: int, cache: Path) -> PreparedFile:
    begin = time.perf_counter()
    cached = _find_intact(cache, graph.identity)
    prepared = cached or _write(graph, probe, threads, cache)
    size = sum(entry.bytes for entry in prepared.record.files.values())
    return PreparedFile(graph.name, str(prepared.folder), size, cached is None, time.perf_counter() - begin)


def _make_cache(cache: Path) -> None:
    with disk_errors(cache):
        cache.parent.mkdir(CACHE_FOLDER, parents=True, exist_ok=True)
        cache.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    check_private(cache)
    check_folders_above(cache)
    remove_leftovers(cache)


def _find_intact(cache: Path, identity: Identity) -> PreparedGraph | None:
    """Find a prepacked graph in the cache and check the digests of all its files."""
    try:
        return check_prepared(cache, identity)
    except (PackError, OSError) as cause:
        logger.warning("%s; it is written again", cause)
        return None


def _write(graph: PackGraph, probe: _Probe, threads: int, cache: Path) -> PreparedGraph:
    """Write a prepacked graph, and check that its outputs equal those of the graph of the pack."""
    path, sizes = graph.path, graph.weight_sizes
    needed, free = disk_bytes(sizes), shutil.disk_usage(cache).free
    if needed > free:
        raise CapacityError(
            f"{cache}: {graph.name} needs about {needed // 10**6} MB there, {free // 10**6} MB are free; free some "
            "space, or choose another folder with --cache"
        )
    check_load(str(path), sizes.total, lambda: sizes, prepared=False, tokens=TOKEN_BUDGET)
    for name in graph.external_data:
        # The prepacked graph outlives the pack, so the content of the weights is checked too.
        graph.pack.check_file(name)
    with disk_errors(cache), temporary_folder(cache / graph.identity.key) as temporary:
        folder = temporary / "graph"
        folder.mkdir(mode=PRIVATE_FOLDER)
        names = FILES if sizes.can_be_saved else ()
        if names:
            expected = probe.outputs(GraphSession(path, threads, save_to=folder / GRAPH))
            if not align_places(folder / GRAPH, folder / SAVED_WEIGHTS):
                raise PackError(
                    f"{path}: its prepared form cannot be mapped; it is not kept, the pack works without it"
                )
            if probe.outputs(GraphSession(folder / GRAPH, threads)) != expected:
                raise PackError(
                    f"{path}: its prepared form gives other vectors; it is not kept, the pack works without it"
                )
        for name in names:
            (folder / name).chmod(PRIVATE_FILE)
        files = {name: describe_file(folder / name) for name in names}
        _write_record(folder, Record(identity=graph.identity, files=files, token_budgets={}))
        return _publish(folder, cache, graph.identity)


def _publish(folder: Path, cache: Path, identity: Identity) -> PreparedGraph:
    """Give a finished folder its name in the cache, unless another process has put an intact one there meanwhile."""
    target = cache / identity.key
    for attempt in range(MAX_ATTEMPTS):
        try:
            os.rename(folder, target)
            return read_prepared(target, identity)
        except OSError:
            # On POSIX the error is that of a folder that is not empty; others exist, and it may be gone by now.
            if attempt == MAX_ATTEMPTS - 1:
                raise
        with contextlib.suppress(PackError, OSError):
            if (prepared := check_prepared(cache, identity)) is not None:
                logger.info("%s: another process has prepared it meanwhile", target)
                return prepared
        # Damaged: it is moved to the temporary folder and removed together with that.
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, folder.parent / f"damaged-{attempt}")
    raise AssertionError


def _write_record(folder: Path, record: Record) -> None:
    with atomic_file(folder / RECORD, PRIVATE_FILE) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


def _text_probe(processor: Processor, output: str, adapter: Adapter | None) -> _Probe:
    """Runs of each golden text alone and of all together."""
    inputs = processor.process(processor.items(TEXTS), "")
    feeds = [processor.collate(batch, []) for batch in (*([text] for text in inputs), inputs)]
    return _Probe(output, feeds, adapter)


def _vision_probe(processor: Processor) -> _Probe:
    (item,) = processor.process(processor.items([golden_image()]), "")
    assert item.image is not None
    assert processor.image is not None
    output = SENTENCE_EMBEDDING if item.of_vision_graph else IMAGE_EMBEDS
    return _Probe(output, [vision_feeds(item.image, processor.image)])
