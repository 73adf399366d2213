"""Places of weights and packed copies in the file next to a prepacked graph, aligned for mapping.

onnxruntime 1.31 writes them behind each other, and maps them where they lie. Its float products read packed copies with
aligned instructions, of 64 bytes on CPUs with AVX-512: where a weight before them has another size, the process ends
with a segmentation fault.
"""

from __future__ import annotations

import mmap
import re
from itertools import pairwise
from pathlib import Path

ALIGNMENT = 64
# Entries of external data in onnx.proto3: a key "offset" with its value, and a packed copy as onnxruntime names it,
# "kernel+digest|place;length;digest".
PLACES = re.compile(rb"\x0a\x06offset\x12.(\d+)|\|(\d+);\d+;\d+", re.DOTALL)


def align_places(graph: Path, weights: Path) -> bool:
    """Move what does not start at a multiple of 64 bytes in the weights file, and write the new places to the graph.

    Returns:
        False if a place has more digits than before, which the graph has no room for; the files are as before.
    """
    content = bytearray(graph.read_bytes())
    spans = [match.span(match.lastindex or 0) for match in PLACES.finditer(content)]
    places = sorted({int(content[begin:end]) for begin, end in spans})
    moved, size = _moved(places, weights.stat().st_size)
    if moved == places:
        return True
    new = dict(zip(places, moved, strict=True))
    for begin, end in spans:
        place = b"%d" % new[int(content[begin:end])]
        if len(place) != end - begin:
            return False
        content[begin:end] = place
    _move(weights, places, moved, size)
    graph.write_bytes(content)
    return True


def _moved(places: list[int], size: int) -> tuple[list[int], int]:
    """Aligned places in the same order, and the size of the file with them."""
    moved, free = [], 0
    for place, end in pairwise((*places, size)):
        moved.append(-(-max(free, place) // ALIGNMENT) * ALIGNMENT)
        free = moved[-1] + end - place
    return moved, max(free, size)


def _move(weights: Path, places: list[int], moved: list[int], size: int) -> None:
    """Move from the end, where there is room: places only grow."""
    ends = [*places[1:], weights.stat().st_size]
    with weights.open("r+b") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as content:
            for place, end, target in reversed(list(zip(places, ends, moved, strict=True))):
                content.move(target, place, end - place)
