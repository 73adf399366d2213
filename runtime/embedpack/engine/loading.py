"""Loading a variant: its files checked, its graphs opened, its inputs prepared."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedpack.engine.encoder import TOKEN_BUDGET, Encoder, LoadedGraph
from embedpack.engine.memory_plan import check_load
from embedpack.engine.prepared import Identity, find_prepared, identity_of
from embedpack.engine.session import Adapter, GraphSession, check_onnxruntime
from embedpack.engine.weight_sizes import WeightSizes, read_weight_sizes
from embedpack.errors import PackError
from embedpack.host.int8_support import products_saturate
from embedpack.inputs.processor import Processor
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack.pack.folder import Pack
from embedpack.pack.manifest import Variant, VisionGraph

logger = logging.getLogger("embedpack")

# Weights of which a second copy may be held for speed.
SMALL_BYTES = 200_000_000


@dataclass(frozen=True)
class PackGraph:
    """One of a pack's graphs, on this host.

    Attributes:
        pack: that it is in.
        name: of its file.
        external_data: files of its weights.
    """

    pack: Pack
    name: str
    external_data: tuple[str, ...]

    @classmethod
    def of(cls, pack: Pack, graph: Variant | VisionGraph) -> PackGraph:
        """The graph of a part of the manifest."""
        return cls(pack, graph.graph, graph.external_data)

    @property
    def identity(self) -> Identity:
        """What a prepared graph must have been made of and for."""
        return identity_of(self.pack, self.name, self.external_data)

    @property
    def path(self) -> Path:
        """Path of its file, once its digest is known to be right, and the sizes of its weights."""
        for name in self.external_data:
            self.pack.path(name)
        return checked_path(self.pack, self.name)

    @property
    def weights(self) -> WeightSizes:
        """What its file says about its weights."""
        return read_weight_sizes(self.pack.read(self.name), str(self.pack.folder / self.name))

    def open(self, threads: int, cache: Path | None, tokens: int) -> LoadedGraph:
        """Load it, or what `embedpack prepare` made of it.

        Args:
            threads: for one run.
            cache: where prepared graphs lie; None: nowhere.
            tokens: of the largest batch that is common.

        Raises:
            PackError: a file is missing or changed, or cannot be loaded.
            CapacityError: it does not fit the memory.
        """
        path = self.path
        prepared = None if cache is None else find_prepared(cache, self.identity)
        saved = None if prepared is None else prepared.path
        budget = None if prepared is None else prepared.token_budget(threads)
        stored = sum(self.pack.manifest.files[name].bytes for name in self.external_data)
        weights = functools.cache(lambda: self.weights)
        check_load(str(path), stored, weights, prepared=saved is not None, tokens=tokens)
        if saved is not None:
            try:
                session = GraphSession(saved, threads)
            except PackError as cause:
                logger.warning("%s; it is not used: run embedpack prepare again", cause)
            else:
                logger.info("%s: loaded as prepared for this host, from %s", self.name, saved.parent)
                # Its weights are mapped: a second session shares them.
                return LoadedGraph(session, budget, weights, threads, _opens_single(saved, threads))
        single = _opens_single(path, threads) if stored <= SMALL_BYTES else None
        return LoadedGraph(GraphSession(path, threads), budget, weights, threads, single)


def _opens_single(path: Path, threads: int) -> Callable[[], GraphSession] | None:
    """Opens a graph for runs of one thread, at the first call only; None: it is open for them already."""
    return functools.cache(lambda: GraphSession(path, 1)) if threads > 1 else None


def open_encoder(pack: Pack, variant: Variant, threads: int, cache: Path | None = None) -> Encoder:
    """Load a variant's graphs and the pack's tokenizer; their digests are checked, of the weights only the size.

    Args:
        pack: the pack.
        variant: one of its variants.
        threads: for one run.
        cache: where graphs lie that were prepared for this host; None: the pack's own are used.

    Raises:
        PackError: a file is missing or changed, or cannot be loaded.
        CapacityError: the variant does not fit the memory.
    """
    check_onnxruntime(variant.min_onnxruntime)
    # Asking the CPU takes longer than telling it.
    if variant.weights == "int8" and logger.isEnabledFor(logging.DEBUG):
        _tell_slow_products()
    processor = open_processor(pack)
    vision = None
    if pack.manifest.image is not None:
        image_graph = pack.manifest.vision[variant.weights]
        # Large, and of no use to those who embed texts only.
        vision = functools.cache(lambda: PackGraph.of(pack, image_graph).open(threads, cache, TOKEN_BUDGET).session)
    text = PackGraph.of(pack, variant).open(threads, cache, TOKEN_BUDGET)
    return Encoder(text, processor, vision, open_adapters(pack, variant))


@functools.cache
def _tell_slow_products() -> None:
    """Once in a process, however many packs it opens."""
    if products_saturate():
        logger.debug(
            "this CPU has no int8 dot products (VNNI): int8 gives the same vectors here, but is less far ahead of fp32 "
            "than on CPUs that have them"
        )


def open_adapters(pack: Pack, variant: Variant) -> dict[str, Adapter]:
    """The adapters of a switchable variant by task; none of a merged one.

    Raises:
        PackError: a file is missing or changed, or is no adapter.
    """
    return {task: Adapter(checked_path(pack, name)) for task, name in variant.adapter_files.items()}


def checked_path(pack: Pack, name: str) -> Path:
    """Path of a file whose digest is right; onnxruntime trusts what it maps."""
    pack.read(name)
    return pack.path(name)


def open_processor(pack: Pack) -> Processor:
    """How the pack's inputs become token ids.

    Raises:
        PackError: the tokenizer is missing or changed, or does not fit the graphs.
    """
    text = pack.manifest.text
    content = pack.read(text.tokenizer)
    try:
        tokenizer = TextTokenizer(content, text.max_tokens)
    except PackError as cause:
        raise PackError(f"{pack.folder}: {cause}") from cause
    if tokenizer.largest_id >= text.vocabulary:
        raise PackError(
            f"{pack.folder}: {text.tokenizer} has ids up to {tokenizer.largest_id}, the graphs' embedding table only "
            f"{text.vocabulary} rows; it belongs to another model: copy the pack again"
        )
    return Processor(tokenizer, text.pad_token_id, pack.manifest.image, pack.manifest.dimensions)
