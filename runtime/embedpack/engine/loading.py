"""Loading of a variant: checks its files, opens its graphs, adapters and processor."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedpack.engine.encoder import TOKEN_BUDGET, Encoder, LoadedGraph
from embedpack.engine.graph_check import check_graph
from embedpack.engine.memory_plan import check_gpu_load, check_load, gpu_token_budget
from embedpack.engine.output_check import OutputCheck
from embedpack.engine.prepared import Identity, PreparedGraph, find_prepared, read_prepared
from embedpack.engine.session import Adapter, GraphSession, Session, check_onnxruntime
from embedpack.engine.support import check_support
from embedpack.engine.weight_sizes import WeightSizes, read_weight_sizes
from embedpack.errors import PackError
from embedpack.host.cpu import cpu_identity
from embedpack.host.int8_support import products_saturate
from embedpack.host.onnxruntime import ort
from embedpack.inputs.pack_tokenizer import open_tokenizer
from embedpack.inputs.processor import Processor
from embedpack.inputs.prompt_rules import PromptRules
from embedpack.pack.folder import Pack
from embedpack.pack.score_recipes import ListScores, PairScores
from embedpack.pack.variants import Device, Variant, VisionGraph

logger = logging.getLogger("embedpack")

# Largest size of weights of which a second copy is held for runs of one thread.
MAX_COPIED_BYTES = 200_000_000


@dataclass(frozen=True)
class PackGraph:
    """A graph of a pack by its file name, the file names of its weights, and its operators in the manifest."""

    pack: Pack
    name: str
    external_data: tuple[str, ...]
    operators: tuple[str, ...]

    @classmethod
    def of(cls, pack: Pack, graph: Variant | VisionGraph) -> PackGraph:
        """Text graph of a variant, or a vision graph."""
        return cls(pack, graph.graph, graph.external_data, graph.operators)

    @property
    def identity(self) -> Identity:
        """Identity of the prepacked graph for this host."""
        files = self.pack.manifest.files
        weights = {name: files[name].sha256 for name in sorted(self.external_data)}
        return Identity(graph=files[self.name].sha256, weights=weights, onnxruntime=ort.__version__, cpu=cpu_identity())

    @property
    def path(self) -> Path:
        """Path of its file, after a check of its digest and content and of the sizes of the weights."""
        for name in self.external_data:
            self.pack.path(name)
        content = self.pack.read(self.name)
        check_graph(content, str(self.pack.folder / self.name), self.operators, self.external_data)
        return self.pack.path(self.name)

    @property
    def weight_sizes(self) -> WeightSizes:
        """Sizes of its weights, from the graph file."""
        return read_weight_sizes(self.pack.read(self.name), str(self.pack.folder / self.name))

    def open(self, threads: int, cache: Path | None) -> LoadedGraph:
        """Load the prepacked graph of `embedpack prepare` if `cache` has one, else the graph of the pack.

        PackError if a file is missing or changed, or cannot be loaded; CapacityError if it does not fit the memory.
        """
        path = self.path
        prepared = None if cache is None else find_prepared(cache, self.identity)
        saved = None if prepared is None else prepared.path
        budget = None if prepared is None else prepared.token_budget(threads)
        stored = sum(self.pack.manifest.files[name].bytes for name in self.external_data)
        weight_sizes = functools.cache(lambda: self.weight_sizes)
        check_load(str(path), stored, weight_sizes, prepared=saved is not None, tokens=TOKEN_BUDGET)
        if prepared is not None and saved is not None:
            try:
                session = GraphSession(saved, threads)
            except PackError as cause:
                logger.warning("%s; it is not used: run embedpack prepare again", cause)
            else:
                logger.info("%s: loaded as prepared for this host, from %s", self.name, saved.parent)
                # The weights are mapped, so a second session shares them.
                one_thread_session = _one_thread(threads, functools.partial(_reopen, prepared, session))
                return LoadedGraph(session, budget, weight_sizes, threads, one_thread_session)
        copied = stored <= MAX_COPIED_BYTES
        one_thread_session = _one_thread(threads, functools.partial(self.session, 1)) if copied else None
        return LoadedGraph(self.session(threads), budget, weight_sizes, threads, one_thread_session)

    def open_on_gpu(self, threads: int) -> LoadedGraph:
        """Load the graph of the pack on a GPU; errors as of `open`, and PackError if a node would run on the CPU."""
        from embedpack.host.gpu import free_memory

        path, weight_sizes = self.path, functools.cache(lambda: self.weight_sizes)
        stored = sum(self.pack.manifest.files[name].bytes for name in self.external_data)
        check_gpu_load(str(path), stored, free_memory() or 0)
        session = self.session(threads, "cuda")
        budget = gpu_token_budget(weight_sizes(), free_memory() or 0, self.pack.manifest.text.max_tokens)
        logger.info("%s: token budget %d on the GPU", self.name, budget)
        return LoadedGraph(session, budget, weight_sizes, threads, device="cuda")

    def session(self, threads: int, device: Device = "cpu") -> Session:
        """Load the graph of the pack, which `path` has checked; the digests of all files are compared once more."""
        files = (*self.external_data, self.name)
        for name in files:
            self.pack.checked_path(name)
        session = _new_session(self.pack.folder / self.name, threads, device)
        # onnxruntime opened them by name: they must still be those that were read.
        for name in files:
            self.pack.checked_path(name)
        return session


def _new_session(graph: Path, threads: int, device: Device) -> Session:
    if device == "cpu":
        return GraphSession(graph, threads)
    from embedpack.engine.cuda_session import CudaSession

    return CudaSession(graph, threads)


def _one_thread(threads: int, load: Callable[[], Session]) -> Callable[[], Session] | None:
    """A cached function that loads a graph with one thread; None if `threads` is 1 anyway."""
    return functools.cache(load) if threads > 1 else None


def _reopen(prepared: PreparedGraph, session: Session) -> Session:
    """Load a prepacked graph again with one thread; if it is gone, `session` takes its place."""
    try:
        path = read_prepared(prepared.folder, prepared.record.identity).path
        return session if path is None else GraphSession(path, 1)
    except (PackError, OSError) as cause:
        logger.warning("%s; batches are run one by one: run embedpack prepare again", cause)
        return session


def open_encoder(
    pack: Pack, variant: Variant, threads: int, cache: Path | None = None, device: Device = "cpu"
) -> Encoder:
    """Load the graphs of a variant on a device, prepacked ones for the CPU from `cache`, and the pack's tokenizer.

    The digests of all files are checked; errors as of `PackGraph.open`.
    """
    check_support(pack, variant)
    check_onnxruntime(variant.min_onnxruntime)
    # Checked only if the message is logged: the check itself takes time.
    if variant.weights == "int8" and logger.isEnabledFor(logging.DEBUG):
        _log_slow_int8()
    processor = open_processor(pack)
    vision = None
    if pack.manifest.image is not None:
        image_graph = pack.manifest.vision[variant.weights]
        # Opened at the first image: it is large, and not needed for texts.
        vision = functools.cache(lambda: _open(PackGraph.of(pack, image_graph), threads, cache, device).session)
    text = _open(PackGraph.of(pack, variant), threads, cache, device)
    return Encoder(text, processor, OutputCheck.of(pack.manifest), vision, open_adapters(pack, variant, device))


def _open(graph: PackGraph, threads: int, cache: Path | None, device: Device) -> LoadedGraph:
    return graph.open(threads, cache) if device == "cpu" else graph.open_on_gpu(threads)


@functools.cache
def _log_slow_int8() -> None:
    """Log once per process that this CPU has no VNNI."""
    if products_saturate():
        logger.debug(
            "this CPU has no int8 dot products (VNNI): int8 vectors are the same, but the speedup over fp32 is smaller "
            "than on CPUs that have them"
        )


def open_adapters(pack: Pack, variant: Variant, device: Device = "cpu") -> dict[str, Adapter]:
    """Open the adapters of a switchable variant by task; PackError if a file is changed, or not an adapter."""
    opened = Adapter
    if variant.adapter_files and device == "cuda":
        from embedpack.engine.cuda_session import CudaAdapter

        opened = CudaAdapter
    return {task: opened(pack.checked_path(name)) for task, name in variant.adapter_files.items()}


def open_processor(pack: Pack) -> Processor:
    """Open the processor of a pack; PackError if the tokenizer is changed, or does not fit the graphs."""
    tokenizer = open_tokenizer(pack)
    try:
        for task in pack.manifest.tasks.values():
            for prompt in task.prompts.values():
                PromptRules(tokenizer).check(prompt)
    except PackError as cause:
        raise PackError(f"{pack.folder}: {cause}") from cause
    manifest, score = pack.manifest, pack.manifest.score
    types = isinstance(score, PairScores) and score.token_types
    return Processor(tokenizer, manifest.text.pad_token_id, manifest.image, types, isinstance(score, ListScores))
