"""Alignment of packed float products in a prepacked graph.

onnxruntime 1.31 writes packed copies behind each other without alignment, and maps them where they lie. Its float
products read them with aligned instructions of 64 bytes on CPUs with AVX-512, of 32 bytes on others, and the process
ends with a segmentation fault where they are not. Integer products read at any place.
"""

from __future__ import annotations

import re
from pathlib import Path

from embedpack.host.cpu import cpu_fields

# Entry of a packed copy in the external data of its weight: kernel, digest, then place and length in the file.
PACKED_FLOATS = re.compile(rb"(?:MatMul|Gemm)\+\d+\|(\d+);")


def floats_are_aligned(graph: Path, root: Path = Path("/")) -> bool:
    """True if the float products of this CPU can read their packed copies in the file next to a prepacked graph."""
    fields = cpu_fields(root)
    needed = 32 if fields is not None and "avx512f" not in fields.get("flags", "avx512f").split() else 64
    return all(int(place) % needed == 0 for place in PACKED_FLOATS.findall(graph.read_bytes()))
