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

from benchmarks.jobs import AdapterJob, MixedJob, OpenJob, PageJob, ShapeJob
from benchmarks.spreads import spread
from embedpack.batching import pad, token_budget_batches
from embedpack.embedder import Embedder
from embedpack.encoder import TOKEN_BUDGET
from embedpack.pack import Pack, Variant, read_pack
from embedpack.saturation import products_saturate
from embedpack.session import GraphSession
from embedpack.tokenizer import TextTokenizer
from embedpack.variant import graph_for_this_cpu

OUTPUT = ["sentence_embedding"]
MIN_CALLS = 3
MIXED_TEXTS = 512
MIXED_TOKENS = (6, 128)
# The usual batch of programs that batch by count.
FIXED_BATCH = 64
LONGEST_TEXT = 128
TEXT_TOKENS = (16, 128, 512)
# Height and width; what the default limit makes of a sheet of paper.
PAGE = (896, 672)
# Rows, inputs and outputs of a large product.
PRODUCT = (128, 2048, 11008)

Feeds = dict[str, npt.NDArray[np.int64]]
Ids = npt.NDArray[np.int64]


def measure_shape(job: ShapeJob) -> dict[str, Any]:
    """Median wall time and mean CPU time of a call."""
    pack = read_pack(job.pack)
    session, graph = open_graph(pack, pack.manifest.variants[job.variant], job.threads)
    rng = np.random.default_rng(job.seed)
    feeds = pad(random_texts(pack, rng, [job.tokens] * job.rows), pack.manifest.text.pad_token_id)
    session.run(OUTPUT, feeds)
    walls: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    while len(walls) < MIN_CALLS or time.perf_counter() - begin < job.seconds:
        start = time.perf_counter()
        session.run(OUTPUT, feeds)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    return {"graph": graph, "calls": len(walls), "wall_s": float(np.median(walls)), "cpu_s": cpu / len(walls)}


def measure_mixed(job: MixedJob) -> dict[str, Any]:
    """Wall and CPU time of one pass; padding counts as time, not as tokens."""
    pack = read_pack(job.pack)
    session, graph = open_graph(pack, pack.manifest.variants[job.variant], job.threads)
    rng = np.random.default_rng(job.seed)
    low, high = np.log(MIXED_TOKENS)
    lengths = np.rint(np.exp(rng.uniform(low, high, MIXED_TEXTS))).astype(int).tolist()
    texts = random_texts(pack, rng, lengths)
    batches = list(mixed_batches(texts, pack.manifest.text.pad_token_id, ours=job.ours))
    session.run(OUTPUT, batches[0])
    start, cpu = time.perf_counter(), time.process_time()
    for feeds in batches:
        session.run(OUTPUT, feeds)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    computed = sum(feeds["input_ids"].size for feeds in batches)
    return {"graph": graph, "tokens": sum(lengths), "tokens_computed": computed, "wall_s": wall, "cpu_s": cpu}


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
    tokenizer = TextTokenizer(model.pack.read(model.pack.manifest.text.tokenizer), model.pack.manifest.text.max_tokens)
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


def product_weights(pack: Pack, graph: str) -> int:
    """Values of all matrices that int8 products of a graph read."""
    model = onnx.load(str(pack.path(graph)), load_external_data=False)
    shapes = {item.name: item.dims for item in model.graph.initializer}
    read = [node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    return sum(math.prod(shapes[name]) for name in read)


def product_gops(threads: int) -> float:
    """Operations a second, in 10^9, of one large int8 product as the graphs of this CPU have it."""
    signed = not products_saturate()
    dtype, zero = (np.int8, 0) if signed else (np.uint8, 128)
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, PRODUCT[1:]) + zero
    constants = {
        "weight": weight.astype(dtype), "step": np.float32(1), "scales": np.ones(PRODUCT[2], np.float32),
        "zero": np.uint8(128), "weight_zero": np.array(zero, dtype),
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


def open_graph(pack: Pack, variant: Variant, threads: int) -> tuple[GraphSession, str]:
    """The graph that `Embedder` takes on this CPU, and its name."""
    graph = graph_for_this_cpu(variant.graph, variant.graph_without_vnni)
    return GraphSession(pack.path(graph), threads), graph


def random_texts(pack: Pack, rng: np.random.Generator, lengths: Sequence[int]) -> list[Ids]:
    """Token ids int64 [length] of no real texts; the padding is not among them."""
    text = pack.manifest.text
    drawn = [rng.integers(0, text.vocabulary - 1, length) for length in lengths]
    return [np.where(ids >= text.pad_token_id, ids + 1, ids) for ids in drawn]


def mixed_batches(texts: list[Ids], pad_token_id: int, *, ours: bool) -> Iterator[Feeds]:
    """The texts as inputs of a graph, batched in one of two ways."""
    if ours:
        for rows in token_budget_batches([len(text) for text in texts], TOKEN_BUDGET):
            yield pad([texts[row] for row in rows], pad_token_id)
        return
    for start in range(0, len(texts), FIXED_BATCH):
        yield pad(texts[start : start + FIXED_BATCH], pad_token_id)


def memory() -> dict[str, int]:
    """Resident and anonymous bytes of this process; mapped files are resident, but not anonymous."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Anonymous"):
            fields[name.lower()] = int(value.split()[0]) * 1024
    return fields


def main() -> None:
    """Do the job on the command line."""
    job = msgspec.json.decode(sys.argv[1], type=ShapeJob | MixedJob | OpenJob | PageJob | AdapterJob)
    if isinstance(job, ShapeJob):
        found = measure_shape(job)
    elif isinstance(job, MixedJob):
        found = measure_mixed(job)
    elif isinstance(job, OpenJob):
        found = measure_open(job)
    elif isinstance(job, AdapterJob):
        found = measure_adapters(job)
    else:
        found = measure_page(job)
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
