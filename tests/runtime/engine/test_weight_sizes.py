"""Sizes of the weights of a graph file, read without onnx."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedpack import PackError
from embedpack.engine.weight_sizes import WeightSizes, read_weight_sizes
from tests.helpers.protobuf import field, model, node, number


def read(tiny: Path, name: str) -> WeightSizes:
    return read_weight_sizes((tiny / name).read_bytes(), name)


def tensor(name: str, shape: tuple[int, ...], length: int, *, packed: bool = False) -> bytes:
    entry = field(1, b"length") + field(2, str(length).encode())
    location = field(1, b"location") + field(2, b"weights.bin")
    sizes = field(1, b"".join(map(number, shape))) if packed else b"".join(field(1, size) for size in shape)
    return field(5, sizes + field(2, 3) + field(8, name.encode()) + field(13, location) + field(13, entry))


def integer(name: str, value: int) -> bytes:
    return field(5, field(1, name.encode()) + field(3, value))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("MatMul", WeightSizes(600, 0, 0, 50, 0)),
        ("MatMulIntegerToFloat", WeightSizes(600, 0, 0, 50, 0)),
        ("Gather", WeightSizes(0, 0, 600, 0, 0)),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bytes_count_for_what_reads_them(kind: str, expected: WeightSizes, packed: bool) -> None:
    assert read_weight_sizes(model(node(kind, "x", "w"), tensor("w", (20, 30), 600, packed=packed)), "g") == expected


def test_blocks_of_four_bits() -> None:
    found = read_weight_sizes(model(node("MatMulNBits", "x", "w"), tensor("w", (300, 4, 16), 19_200)), "g")
    assert found == WeightSizes(0, 19_200, 0, 300 + 4 * 16 * 2, 0)


def test_heads_of_an_attention_that_holds_its_scores() -> None:
    attention = node("Attention", "x", attributes=integer("kv_num_heads", 2) + integer("q_num_heads", 12))
    grouped = node("GroupQueryAttention", "x", attributes=integer("num_heads", 16))
    assert read_weight_sizes(model(attention, grouped), "g") == WeightSizes(0, 0, 0, 0, 12)
    assert read_weight_sizes(model(grouped), "g").materialized_score_heads == 0
    blockwise = read_weight_sizes(
        model(grouped, node("MultiHeadAttention", "x", attributes=integer("num_heads", 6))), "g"
    )
    assert (blockwise.materialized_score_heads, blockwise.gpu_score_heads) == (0, 6)


def test_heads_of_an_attention_in_blocks() -> None:
    """Queries of blocks are reshaped; an attention to all tokens may be in the same graph."""
    near = node("Attention", "blocks", attributes=integer("q_num_heads", 12))
    reshape = node("Reshape", "q", attributes=field(2, b"blocks"))
    assert read_weight_sizes(model(near, reshape), "g") == WeightSizes(0, 0, 0, 0, 0, 12)
    all_tokens = node("Attention", "q", attributes=integer("q_num_heads", 4))
    assert read_weight_sizes(model(near, reshape, all_tokens), "g") == WeightSizes(0, 0, 0, 0, 4, 12)


def test_nodes_may_come_behind_the_weights_and_fields_of_other_kinds_are_skipped() -> None:
    strange = number(20 << 3 | 1) + bytes(8) + number(21 << 3 | 5) + bytes(4)
    found = read_weight_sizes(model(tensor("w", (20, 30), 600), strange, node("MatMul", "x", "w")), "g")
    assert found.matmul_bytes == 600


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_weights_of_a_graph_are_all_counted(tiny: Path, weights: str) -> None:
    found = read(tiny, f"default-{weights}.onnx")
    manifest = json.loads((tiny / "pack.json").read_bytes())
    files = manifest["variants"][f"default-{weights}"]["external_data"]
    stored = sum(manifest["files"][name]["bytes"] for name in files)
    # The files also hold what other variants need, and gaps for alignment.
    assert 0.5 * stored < found.total <= stored
    assert found.materialized_score_heads == 4


def test_each_format_is_told_from_the_others(tiny: Path) -> None:
    fp32, int8, int4 = (read(tiny, f"default-{name}.onnx") for name in ("fp32", "int8", "int4"))
    assert fp32.matmul_bytes > 3 * int8.matmul_bytes > 0
    assert int4.nbits_matmul_bytes > 0 == int8.nbits_matmul_bytes == fp32.nbits_matmul_bytes
    assert fp32.widest == int8.widest == int4.widest


@pytest.mark.parametrize("cut", [10, 1000, 5000])
def test_cut_file(tiny: Path, cut: int) -> None:
    content = (tiny / "default-int8.onnx").read_bytes()[:cut]
    with pytest.raises(PackError, match=r"^g: not an ONNX graph; copy the pack again$"):
        read_weight_sizes(content, "g")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no graph",
        b"\xff" * 40,
        field(7, 5),
        field(7, b"\xff"),
        model() + model(),
        model(field(1, 5)),
        model(field(5, field(8, 7))),
        model(field(5, field(8, b"\xff\xfe"))),
        model(tensor("w", (2, 3), 6).replace(b"6", b"x")),
        model(node("Attention", "x", attributes=field(5, field(3, 7)))),
    ],
)
def test_file_that_is_no_graph(content: bytes) -> None:
    with pytest.raises(PackError, match=r"^g: not an ONNX graph; copy the pack again$"):
        read_weight_sizes(content, "g")
