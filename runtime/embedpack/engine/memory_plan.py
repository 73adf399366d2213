"""Estimates of the memory that a graph needs to be loaded and to compute a batch.

onnxruntime maps weights from their files, and matrix products keep a packed copy of theirs. The files of prepacked
graphs contain these copies, so they are mapped too.

The factors were fitted to the anonymous memory of processes that only load and run a graph: an encoder of width 384
and decoders of widths 576 and 2048, in the formats fp32, int8 and int4.
"""

from __future__ import annotations

from collections.abc import Callable

from embedpack.engine.weight_sizes import WeightSizes
from embedpack.errors import CapacityError
from embedpack.host.memory import available_memory, check_memory
from embedpack.pack.graph_io import LONG_TEXT

# Bytes in memory per byte of the weights, by operator; all other weights are only mapped.
MATMUL_FACTOR, NBITS_MATMUL_FACTOR = 1.0, 1.5
# Bytes in memory per byte of all weights of a prepacked graph.
PREPACKED_FACTOR = 0.1
# Nodes of a graph and buffers of onnxruntime.
BASE_BYTES = 30_000_000
# Values in memory per token, as a multiple of the inputs plus outputs of the widest matrix product.
ACTIVATION_FACTOR = 10
FLOAT_BYTES = 4
# Libraries and buffers of onnxruntime in the memory of a GPU; among them a matrix of 4-bit weights as float16, which
# batches of more than 16 tokens are multiplied with.
GPU_BASE_BYTES = 500_000_000
# Token budgets of a GPU, and the share of its free memory that a batch may take.
MIN_GPU_TOKENS, MAX_GPU_TOKENS = 256, 65_536
BATCH_SHARE = 0.5


def load_bytes(weights: WeightSizes, *, prepared: bool) -> int:
    """Bytes of memory that loading a graph takes, without mapped files."""
    if prepared:
        return BASE_BYTES + int(PREPACKED_FACTOR * weights.total)
    copies = MATMUL_FACTOR * weights.matmul_bytes + NBITS_MATMUL_FACTOR * weights.nbits_matmul_bytes
    return BASE_BYTES + int(copies)


def batch_bytes(weights: WeightSizes, rows: int, longest: int) -> int:
    """Bytes of memory that computing a batch takes: `rows` texts, padded to `longest` tokens."""
    linear = ACTIVATION_FACTOR * FLOAT_BYTES * weights.widest * rows * longest
    # Scores of every token with every other, if an attention does not compute them block by block; of blocks, with as
    # many tokens as a text may have that is one block.
    keys = weights.materialized_score_heads * longest + weights.block_score_heads * min(longest, LONG_TEXT)
    return linear + FLOAT_BYTES * rows * longest * keys


def check_load(where: str, stored: int, weights: Callable[[], WeightSizes], *, prepared: bool, tokens: int) -> None:
    """Raise CapacityError if a graph does not fit the memory together with a batch of `tokens`.

    `where` is the graph's name, `stored` the bytes of its weights on disk. `weights` is called only if memory may be
    short.
    """
    available = available_memory()
    if available is None or (stored + BASE_BYTES) * 2 * NBITS_MATMUL_FACTOR < available:
        return
    sizes = weights()
    loaded, batch = load_bytes(sizes, prepared=prepared), batch_bytes(sizes, 1, tokens)
    remedy = "free some memory, or take a variant with smaller weights"
    if not prepared:
        remedy += ", or run embedpack prepare on a host like this one: prepared weights are mapped, not copied"
    what = f"{where}: loading it ({loaded // 10**6} MB) and a batch of {tokens} tokens ({batch // 10**6} MB)"
    check_memory(loaded + batch, what, remedy)


def check_gpu_load(where: str, stored: int, free: int) -> None:
    """Raise CapacityError if the weights of a graph, `stored` bytes, do not fit the free memory of a GPU."""
    needed = stored + GPU_BASE_BYTES
    if needed > free:
        raise CapacityError(
            f"{where}: loading it needs about {needed // 10**6} MB of the GPU's memory, {free // 10**6} MB are free; "
            "end other programs on it, or take a smaller model"
        )


def gpu_token_budget(weights: WeightSizes, free: int, max_tokens: int) -> int:
    """Largest power of two as a token budget whose batches, of texts of any length, fit the free memory of a GPU."""
    budget = MAX_GPU_TOKENS
    while budget > MIN_GPU_TOKENS:
        longest = min(budget, max_tokens)
        scores = FLOAT_BYTES * (budget // longest) * longest**2 * weights.gpu_score_heads
        if batch_bytes(weights, budget // longest, longest) + scores <= BATCH_SHARE * free:
            break
        budget //= 2
    return budget
