"""Packed copies of float products that this CPU's instructions can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedpack.engine.packed_alignment import floats_are_aligned


@pytest.mark.parametrize(
    ("flags", "place", "aligned"),
    [
        ("avx2 avx512f", 128, True),
        ("avx2 avx512f", 96, False),
        ("avx2", 96, True),
        ("avx2", 80, False),
        (None, 96, False),
    ],
)
def test_the_alignment_is_that_of_the_cpu(tmp_path: Path, flags: str | None, place: int, *, aligned: bool) -> None:
    (tmp_path / "proc").mkdir()
    if flags is not None:
        (tmp_path / "proc" / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(b"\x0aMatMulIntegerToFloat+15|33;64;0\x12\x0aMatMul+123|%d;4096;0" % place)
    assert floats_are_aligned(graph, tmp_path) is aligned
