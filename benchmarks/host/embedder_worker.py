"""Measurements of an `Embedder` in a fresh process: opening a variant, texts, a page."""

from __future__ import annotations

import math
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.jobs import Job, VariantJob
from benchmarks.speed.peak import product_weights
from benchmarks.timing import memory, repeated
from embedpack.embedder import Embedder
from embedpack.engine.loading import open_processor
from embedpack.engine.session import GraphSession
from embedpack.pack.input_recipes import QwenImage, SquareImage
from embedpack.pack.strict import AdapterMode

MAX_WORDS = 128
TEXT_TOKENS = (16, 128, 512)
# Height and width of a sheet of paper under the default limit of pixels.
PAGE = (896, 672)
# Rows, inputs and outputs of a large product.
PRODUCT = (128, 2048, 11008)
PRODUCT_CALLS = 9


class InputJob(Job, frozen=True, kw_only=True):
    """A pack, the task and the adapter mode of its int8 variant, and the seed of a page's pixels."""

    pack: str
    task: str
    adapters: AdapterMode
    threads: int
    seed: int


def measure_open(job: VariantJob) -> dict[str, Any]:
    """Measure seconds and memory of opening a variant, and memory after texts of 1 to MAX_WORDS words."""
    after_import = memory()
    start = time.perf_counter()
    model = Embedder(job.pack, variant=job.variant, threads=job.threads)
    seconds = time.perf_counter() - start
    after_load = memory()
    model.encode(["word " * count for count in range(1, MAX_WORDS + 1)])
    return {"load_s": seconds, "after_import": after_import, "after_load": after_load, "after_texts": memory()}


def measure_inputs(job: InputJob) -> dict[str, Any]:
    """Measure loading, texts of a few lengths, a page if the pack reads images, and the speed of int8 products."""
    start = time.perf_counter()
    model = Embedder(job.pack, task=job.task, weights="int8", adapters=job.adapters, threads=job.threads)
    seconds = time.perf_counter() - start
    after_load = memory()
    runs = {}
    for tokens in TEXT_TOKENS:
        wall = repeated(partial(model.encode, text_of(model, tokens)))["wall_s"]
        runs[f"text of {tokens} tokens"] = {"tokens": tokens, "wall_s": wall}
    result = {"load_s": seconds, "after_load": after_load, "after_texts": memory()}
    manifest, page_name = model.pack.manifest, f"page of {PAGE[0]} x {PAGE[1]} pixels"
    spec, graph = manifest.image, manifest.variants[model.variant].graph
    graphs = dict.fromkeys(runs, graph)
    if spec is not None:
        page = np.random.default_rng(job.seed).integers(0, 256, (*PAGE, 3), dtype=np.uint8)
        wall = repeated(partial(model.encode, page), min_calls=1)["wall_s"]
        runs[page_name] = {"tokens": _page_tokens(spec), "wall_s": wall}
        # Only the products of one graph count: of the text graph, though a page's time includes the vision tower, or
        # of a vision graph that gives finished vectors.
        graphs[page_name] = graph if isinstance(spec, QwenImage) else manifest.vision["int8"].graph
        result["after_page"] = memory()
    gops = product_gops(job.threads)
    for name, timed in runs.items():
        operations = 2 * product_weights(model.pack, graphs[name])
        timed["share"] = operations * timed["tokens"] / timed["wall_s"] / 1e9 / gops
    return {**result, "product_gops": gops, "runs": runs}


def _page_tokens(spec: QwenImage | SquareImage) -> int:
    if isinstance(spec, SquareImage):
        return spec.grid**2 + 1
    return PAGE[0] * PAGE[1] // (spec.patch_size * spec.merge_size) ** 2


def text_of(model: Embedder, tokens: int) -> str:
    """Text with that number of tokens, its prompt included."""
    tokenizer = open_processor(model.pack).tokenizer
    prompt = model.prompts["query"]
    text = "a"
    while len(tokenizer.encode([text], prompt)[0].ids) < tokens:
        text += " a"
    return text


def product_gops(threads: int) -> float:
    """Speed of one large int8 product, as int8 graphs compute it, in 10^9 operations a second."""
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
        wall = repeated(lambda: session.run(["y"], {"x": x}), min_calls=PRODUCT_CALLS)["wall_s"]
        return 2 * math.prod(PRODUCT) / wall / 1e9
