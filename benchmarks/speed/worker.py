"""One measurement in a fresh process: takes a job as JSON, prints JSON."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from benchmarks.jobs import AdapterJob, OpenJob, PageJob, SpeedJob
from benchmarks.peers.job import read_inputs
from benchmarks.peers.pooled import FIXED_BATCH
from benchmarks.speed.products import product_weights
from benchmarks.spreads import spread
from benchmarks.timing import MIN_CALLS, memory, once, repeated
from embedpack.embedder import Embedder
from embedpack.engine.encoder import EncodeOptions
from embedpack.engine.loading import open_encoder, open_processor
from embedpack.engine.session import GraphSession
from embedpack.inputs.batching import pad
from embedpack.pack.folder import Pack, read_pack
from embedpack.pack.graph_io import INPUT_IDS, SENTENCE_EMBEDDING
from embedpack.pack.manifest import Variant

OUTPUT = [SENTENCE_EMBEDDING]
LONGEST_TEXT = 128
TEXT_TOKENS = (16, 128, 512)
# Height and width; what the default limit makes of a sheet of paper.
PAGE = (896, 672)
# Rows, inputs and outputs of a large product.
PRODUCT = (128, 2048, 11008)

Feeds = dict[str, npt.NDArray[np.int64]]
Ids = npt.NDArray[np.int64]


def measure_shape(job: SpeedJob) -> dict[str, Any]:
    """Median wall time and mean CPU time of a call."""
    pack = read_pack(job.pack)
    session = open_graph(pack, pack.manifest.variants[job.variant], job.threads)
    feeds = pad(_ids(job.inputs), pack.manifest.text.pad_token_id)
    found = repeated(lambda: session.run(OUTPUT, feeds), job.seconds)
    np.save(job.vectors, session.run(OUTPUT, feeds)[0])
    return {**found, "memory": memory()}


def measure_mixed(job: SpeedJob) -> dict[str, Any]:
    """Wall and CPU time of one pass; padding counts as time, not as tokens."""
    pack = read_pack(job.pack)
    variant = pack.manifest.variants[job.variant]
    texts, ids = read_inputs(job.inputs).texts, _ids(job.inputs)
    if job.batching == "ours":
        encoder = open_encoder(pack, variant, job.threads)
        options = EncodeOptions()
        computed = [len(batch) * max(len(item.ids) for item in batch) for _, batch in encoder.batches(texts, options)]
        run = partial(encoder.run, texts, OUTPUT[0], options)
        encoder.run(texts[:FIXED_BATCH], OUTPUT[0], options)
    else:
        session = open_graph(pack, variant, job.threads)
        batches = list(fixed_batches(ids, pack.manifest.text.pad_token_id))
        computed = [feeds[INPUT_IDS].size for feeds in batches]
        run = partial(_run_all, session, batches)
        session.run(OUTPUT, batches[0])
    kept: list[npt.NDArray[Any]] = []
    found = once(lambda: kept.append(run()))
    np.save(job.vectors, kept[0])
    counts = {"tokens": sum(map(len, ids)), "tokens_computed": sum(computed)}
    return {**counts, **found, "memory": memory()}


def _run_all(session: GraphSession, batches: Sequence[Feeds]) -> npt.NDArray[Any]:
    return np.concatenate([session.run(OUTPUT, feeds)[0] for feeds in batches])


def _ids(path: str) -> list[Ids]:
    """Token ids int64 [length] of each input."""
    return [np.array(row, np.int64) for row in read_inputs(path).ids]


def measure_open(job: OpenJob) -> dict[str, Any]:
    """Seconds and memory of opening a variant, and memory once it has worked."""
    after_import = memory()
    start = time.perf_counter()
    model = Embedder(job.pack, variant=job.variant, threads=job.threads)
    seconds = time.perf_counter() - start
    after_load = memory()
    model.encode(["word " * count for count in range(1, LONGEST_TEXT + 1)])
    return {"load_s": seconds, "after_import": after_import, "after_load": after_load, "after_texts": memory()}


def measure_page(job: PageJob) -> dict[str, Any]:
    """Load, then a few lengths of text and one page, each against the speed of int8 products alone."""
    start = time.perf_counter()
    model = Embedder(job.pack, variant=job.variant, threads=job.threads)
    seconds = time.perf_counter() - start
    after_load = memory()
    rng = np.random.default_rng(job.seed)
    page = rng.integers(0, 256, (*PAGE, 3), dtype=np.uint8)
    spec = model.pack.manifest.image
    assert spec is not None
    operations = 2 * product_weights(model.pack, model.pack.manifest.variants[job.variant].graph)
    gops = product_gops(job.threads)
    runs = {}
    for tokens in TEXT_TOKENS:
        text = text_of(model, tokens)
        runs[f"text of {tokens} tokens"] = {
            "tokens": tokens,
            "wall_s": median_seconds(partial(model.encode, text)),
        }
    count = PAGE[0] * PAGE[1] // (spec.patch_size * spec.merge_size) ** 2
    runs[f"page of {PAGE[0]} x {PAGE[1]} pixels"] = {
        "tokens": count,
        "wall_s": median_seconds(partial(model.encode, page), 1),
    }
    for item in runs.values():
        # Of the decoder's products; a page's time holds the vision tower too.
        item["share"] = operations * item["tokens"] / item["wall_s"] / 1e9 / gops
    return {"load_s": seconds, "after_load": after_load, "after_page": memory(), "product_gops": gops, "runs": runs}


def measure_adapters(job: AdapterJob) -> dict[str, Any]:
    """CPU and wall time of a text with switchable adapters, relative to merged ones."""
    merged = Embedder(job.merged, task=job.task, weights="int8", threads=job.threads)
    switchable = Embedder(job.switchable, task=job.task, weights="int8", adapters="switchable", threads=job.threads)
    found = {}
    for tokens in TEXT_TOKENS:
        text = text_of(merged, tokens)
        merged.encode(text)
        switchable.encode(text)
        times = [(_times(merged, text), _times(switchable, text)) for _ in range(job.repetitions)]
        found[f"text of {tokens} tokens"] = {
            "wall": spread([other[0] / one[0] for one, other in times]),
            "cpu": spread([other[1] / one[1] for one, other in times]),
        }
    return found


def _times(model: Embedder, text: str) -> tuple[float, float]:
    """Wall and CPU time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    model.encode(text)
    return time.perf_counter() - wall, time.process_time() - cpu


def text_of(model: Embedder, tokens: int) -> str:
    """A text that has that many tokens with its prompt."""
    tokenizer = open_processor(model.pack).tokenizer
    prompt = model.prompts["query"]
    text = "a"
    while len(tokenizer.encode([text], prompt)[0].ids) < tokens:
        text += " a"
    return text


def median_seconds(call: Callable[[], object], calls: int = MIN_CALLS) -> float:
    """Median wall time of a call, after a first one that does not count."""
    call()
    walls = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
    return float(np.median(walls))


def product_gops(threads: int) -> float:
    """Operations a second, in 10^9, of one large int8 product as int8 graphs have it."""
    rng = np.random.default_rng(0)
    constants = {
        "weight": rng.integers(-64, 65, PRODUCT[1:]).astype(np.int8), "step": np.float32(1),
        "scales": np.ones(PRODUCT[2], np.float32), "zero": np.uint8(128),
    }  # fmt: skip
    node = helper.make_node("MatMulIntegerToFloat", ["x", *constants], ["y"], domain="com.microsoft")
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, PRODUCT[:2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (PRODUCT[0], PRODUCT[2]))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
        session = GraphSession(path, threads)
        x = rng.integers(1, 256, PRODUCT[:2]).astype(np.uint8)
        return 2 * math.prod(PRODUCT) / median_seconds(lambda: session.run(["y"], {"x": x}), 9) / 1e9


def open_graph(pack: Pack, variant: Variant, threads: int) -> GraphSession:
    """The graph of a variant, as the pack has it."""
    return GraphSession(pack.path(variant.graph), threads)


def fixed_batches(texts: list[Ids], pad_token_id: int) -> Iterator[Feeds]:
    """The texts in their order, some at a time, padded to the longest."""
    for start in range(0, len(texts), FIXED_BATCH):
        yield pad(texts[start : start + FIXED_BATCH], pad_token_id)


def main() -> None:
    """Do the job on the command line."""
    job = msgspec.json.decode(sys.argv[1], type=SpeedJob | OpenJob | PageJob | AdapterJob)
    if isinstance(job, SpeedJob):
        found = measure_shape(job) if job.batching == "one" else measure_mixed(job)
    elif isinstance(job, OpenJob):
        found = measure_open(job)
    elif isinstance(job, AdapterJob):
        found = measure_adapters(job)
    else:
        found = measure_page(job)
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
