"""Places of weights and packed copies next to a prepacked graph."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.engine.packed_alignment import ALIGNMENT, PLACES, align_places


def write(folder: Path, parts: list[bytes], begin: int) -> tuple[Path, Path]:
    """Files with the parts behind each other from a place, every second one as a packed copy."""
    graph, weights = folder / "graph.onnx", folder / "weights.bin"
    place, entries = begin, []
    for number, part in enumerate(parts):
        digits = b"%d" % place
        packed = b"MatMul+%d|%s;%d;0" % (number, digits, len(part))
        entries.append(packed if number % 2 else b"\x0a\x06offset\x12%c%s" % (len(digits), digits))
        place += len(part)
    graph.write_bytes(b"\x00".join(entries))
    weights.write_bytes(bytes(begin) + b"".join(parts))
    return graph, weights


def places(graph: Path) -> list[int]:
    return [int(match.group(match.lastindex or 0)) for match in PLACES.finditer(graph.read_bytes())]


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=12))
def test_every_part_is_aligned_and_whole(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    graph, weights = write(tmp_path_factory.mktemp("aligned"), parts, begin=1024)
    assert align_places(graph, weights)
    content = weights.read_bytes()
    assert all(place % ALIGNMENT == 0 for place in places(graph))
    assert [content[place : place + len(part)] for place, part in zip(places(graph), parts, strict=True)] == parts


def test_aligned_files_are_left_as_they_are(tmp_path: Path) -> None:
    graph, weights = write(tmp_path, [b"a" * ALIGNMENT, b"b" * ALIGNMENT, b"c"], begin=0)
    before = graph.read_bytes(), weights.read_bytes()
    assert align_places(graph, weights)
    assert (graph.read_bytes(), weights.read_bytes()) == before


def test_places_that_need_another_digit_change_nothing(tmp_path: Path) -> None:
    graph, weights = write(tmp_path, [b"a" * 70, b"b"], begin=9_920)
    before = graph.read_bytes(), weights.read_bytes()
    assert places(graph) == [9_920, 9_990]
    assert not align_places(graph, weights)
    assert (graph.read_bytes(), weights.read_bytes()) == before
