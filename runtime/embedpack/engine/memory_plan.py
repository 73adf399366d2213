"""How much memory a graph will take, said before it is loaded, and before it reads a long text.

onnxruntime maps weights from their files. Products keep a copy of theirs in an order that is faster to read. Prepared
graphs hold these copies in their own files.

The factors were taken from the anonymous memory of processes that did nothing but load a graph and run it: an encoder
384 wide, decoders 576 and 2048 wide, in the formats fp32, int8 and int4.
"""

from __future__ import annotations

from collections.abc import Callable

from embedpack.engine.weight_sizes import WeightSizes
from embedpack.host.memory import available_memory, check_memory

# Bytes in memory for each byte of the weights.
PRODUCT, BLOCK_PRODUCT, OTHER = 1.0, 1.5, 0.0
# Of a prepared graph, for each byte of all weights.
PREPARED = 0.1
# A graph's nodes, and what onnxruntime needs in between.
BASE_BYTES = 30_000_000
# Values that are held for a token, as multiples of the inputs and outputs of the widest product.
HELD = 10
FLOAT_BYTES = 4


def load_bytes(weights: WeightSizes, *, prepared: bool) -> int:
    """Bytes of memory, mapped files left out, that loading a graph takes."""
    if prepared:
        return BASE_BYTES + int(PREPARED * weights.total)
    copies = PRODUCT * weights.matmul_bytes + BLOCK_PRODUCT * weights.nbits_matmul_bytes + OTHER * weights.other_bytes
    return BASE_BYTES + int(copies)


def batch_bytes(weights: WeightSizes, rows: int, longest: int) -> int:
    """Bytes of memory that a batch takes while it is computed.

    Args:
        weights: of the graph.
        rows: texts of the batch.
        longest: tokens of its longest text.
    """
    linear = HELD * FLOAT_BYTES * weights.widest * rows * longest
    # Scores of every token with every other, where an attention is not computed piece by piece.
    return linear + FLOAT_BYTES * weights.materialized_score_heads * rows * longest**2


def check_load(where: str, stored: int, weights: Callable[[], WeightSizes], *, prepared: bool, tokens: int) -> None:
    """Refuse a graph that does not fit the memory.

    Args:
        where: its name, for the message.
        stored: bytes of its weights on disk, at least.
        weights: reads what its file says about them; asked only where memory may be short.
        prepared: it is loaded as prepared for this host.
        tokens: of the largest batch that is common.

    Raises:
        CapacityError: with the figures.
    """
    available = available_memory()
    if available is None or (stored + BASE_BYTES) * 2 * BLOCK_PRODUCT < available:
        return
    found = weights()
    loaded, batch = load_bytes(found, prepared=prepared), batch_bytes(found, 1, tokens)
    remedy = "free some memory, or take a variant with smaller weights"
    if not prepared:
        remedy += ", or run embedpack prepare on a host like this one: prepared weights are mapped, not copied"
    what = f"{where}: loading it ({loaded // 10**6} MB) and a batch of {tokens} tokens ({batch // 10**6} MB)"
    check_memory(loaded + batch, what, remedy)
