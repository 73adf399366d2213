"""Graphs of hostile packs: operators and weights files outside the manifest are refused before they are loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from embedpack import Embedder, PackError
from embedpack.engine.graph_check import OPERATORS, check_graph
from embedpack.engine.prepare import graphs_of
from embedpack.engine.weight_sizes import read_weight_sizes
from embedpack.pack.folder import read_pack
from tests.helpers.broken_packs import Edit, ReplaceFile, put, refusal
from tests.helpers.protobuf import field, model, node, number

ADD = node("Add", "x", "y")
ADDS = ["ai.onnx.Add"]


def tensor(location: str) -> bytes:
    return field(8, b"w") + field(13, field(1, b"location") + field(2, location.encode()))


def check(content: bytes, operators: list[str] = ADDS, external_data: tuple[str, ...] = ()) -> None:
    check_graph(content, "g", operators, external_data)


def test_graph_that_fits_its_manifest() -> None:
    check(model(ADD))
    check(model(ADD, field(5, tensor("w.bin"))), external_data=("w.bin",))
    check(model(node("QuickGelu", "x", attributes=field(7, b"com.microsoft"))), ["com.microsoft.QuickGelu"])


KINDS = ("Loop", "If", "Scan", "RandomNormal", "RandomUniformLike", "Bernoulli", "Add2")
FOREIGN = [(domain, kind) for domain in ("", "ai.onnx.ml", "com.microsoft", "my.ops") for kind in KINDS]


@pytest.mark.parametrize(("domain", "kind"), [pair for pair in FOREIGN if pair != ("", "If")])
def test_operator_that_embedpack_does_not_write(domain: str, kind: str) -> None:
    content = model(ADD, node(kind, "x", attributes=field(7, domain.encode()) if domain else b""))
    name = f"{domain or 'ai.onnx'}.{kind}"
    message = f"^g: has the operator '{name}', which embedpack does not write; do not use this pack$"
    with pytest.raises(PackError, match=message):
        check(content, [*ADDS, name])


def branches(*parts: bytes) -> bytes:
    """A node with a branch of these fields, and an empty one."""
    return node("If", "x", attributes=field(5, field(6, b"".join(parts))) + field(5, field(6, b"")))


def test_branches_that_fit_the_manifest() -> None:
    check(model(branches(ADD, field(5, tensor("w.bin")))), [*ADDS, "ai.onnx.If"], external_data=("w.bin",))


@pytest.mark.parametrize("kind", ["Loop", "RandomNormal"])
def test_operator_in_a_branch_that_embedpack_does_not_write(kind: str) -> None:
    with pytest.raises(PackError, match=f"^g: has the operator 'ai.onnx.{kind}', which embedpack does not write"):
        check(model(branches(ADD), branches(node(kind))), [*ADDS, "ai.onnx.If", f"ai.onnx.{kind}"])


@pytest.mark.parametrize("place", [5, 1])
def test_weights_file_of_a_branch_outside_the_manifest(place: int) -> None:
    value = tensor("../w.bin")
    part = field(5, value) if place == 5 else node("Add", attributes=field(5, field(5, value)))
    with pytest.raises(PackError, match=r"^g: the weights files differ from pack\.json in '\.\./w\.bin'"):
        check(model(branches(ADD, part)), [*ADDS, "ai.onnx.If"])


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (model(branches(branches(ADD))), "a branch has branches"),
        (model(branches(ADD, field(15, b""))), "sparse weights"),
        (model(branches(node("Add", attributes=field(5, field(6, b""))))), "a node has a graph"),
        (model(node("If", attributes=field(5, field(11, b"")))), "a node has a graph"),
        (model(ADD) + field(25, b""), "functions or training steps"),
        (model(ADD) + field(20, b""), "functions or training steps"),
        (model(ADD, field(15, b"")), "sparse weights"),
        (model(node("Add", attributes=field(8, b"overload"))), "a node names a function"),
        (model(node("Add", attributes=field(4, b"Loop"))), "a node names two operators"),
        *(
            (model(node("Add", attributes=field(5, field(part, b"")))), "a node has a graph")
            for part in (6, 11, 21, 22)
        ),
    ],
)
def test_part_of_onnx_that_embedpack_does_not_write(content: bytes, detail: str) -> None:
    with pytest.raises(PackError, match=rf"^g: not an ONNX graph of embedpack \(.*{detail}.*\); copy the pack again$"):
        check(content)


@pytest.mark.parametrize("location", ["other.bin", "../w.bin", "/etc/passwd", "weights/../w.bin", "", "./w.bin"])
@pytest.mark.parametrize("place", [5, 1])
def test_weights_file_outside_the_manifest(location: str, place: int) -> None:
    """In an initializer, and in an attribute of a node."""
    value = tensor(location)
    part = field(5, value) if place == 5 else node("Add", attributes=field(5, field(5, value)))
    with pytest.raises(PackError, match=r"^g: the weights files differ from pack\.json in .*the graph has it"):
        check(model(ADD, field(5, tensor("w.bin")), part), external_data=("w.bin",))


def test_manifest_that_names_more_than_the_graph() -> None:
    with pytest.raises(PackError, match=r"in 'w\.bin': pack\.json has it, the graph does not; copy the pack again$"):
        check(model(ADD), external_data=("w.bin",))
    with pytest.raises(PackError, match=r"operators differ from pack\.json in 'ai\.onnx\.Mul': pack\.json has it"):
        check(model(ADD), [*ADDS, "ai.onnx.Mul"])


@pytest.mark.parametrize(
    "content", [b"", b"no graph", b"\xff" * 40, field(7, 5), model() + model(), model(field(1, 5))]
)
def test_file_that_is_no_graph(content: bytes) -> None:
    with pytest.raises(PackError, match=r"^g: not an ONNX graph of embedpack; copy the pack again$"):
        check(content)


@pytest.mark.parametrize("read", [check, lambda content: read_weight_sizes(content, "g")])
def test_endless_number(read: Callable[[bytes], object]) -> None:
    with pytest.raises(PackError, match=r"^g: not an ONNX graph"):
        read(model(field(1, b"\x08" + b"\xff" * 100 + b"\x01")))


def test_numbers_of_64_bits_are_read() -> None:
    largest = number(2**64 - 1)
    assert len(largest) == 10
    check(model(ADD, field(5, field(1, 2**64 - 1))))


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_operators_of_the_tiny_pack_are_known(tiny: Path, weights: str) -> None:
    assert set(read_pack(tiny).manifest.variants[f"default-{weights}"].operators) <= OPERATORS


def test_pack_whose_graph_reads_undeclared_weights(pack: Path, edit: Edit, replace_file: ReplaceFile) -> None:
    """Attack on the cache: the true weights listed under other names, others where the graph reads them."""
    honest = (pack / "weights/fp32.bin").read_bytes()
    identity = graphs_of(read_pack(pack), "default-fp32")[0].identity
    (pack / "weights/honest.bin").write_bytes(honest)
    replace_file("weights/honest.bin", honest)
    edit(put("variants", "default-fp32", "external_data", ["weights/honest.bin", "weights/shared.bin"]))
    hostile = graphs_of(read_pack(pack), "default-fp32")[0]
    assert hostile.identity.key != identity.key
    message = refusal(pack, lambda: Embedder(pack, weights="fp32", threads=1))
    assert message.startswith("PACK/default-fp32.onnx: the weights files differ from pack.json in 'weights/")
    assert refusal(pack, lambda: hostile.path) == message


def test_manifest_with_fewer_operators(pack: Path, edit: Edit) -> None:
    edit(put("variants", "default-fp32", "operators", ["ai.onnx.Add"]))
    message = refusal(pack, lambda: Embedder(pack, weights="fp32", threads=1))
    assert message.startswith("PACK/default-fp32.onnx: the operators differ from pack.json in 'ai.onnx.")


def test_same_weights_under_other_names_have_another_identity(pack: Path, edit: Edit) -> None:
    manifest = json.loads((pack / "pack.json").read_bytes())
    names = manifest["variants"]["default-fp32"]["external_data"]
    before = graphs_of(read_pack(pack), "default-fp32")[0].identity
    first, second = (manifest["files"][name] for name in names)
    edit(lambda content: content["files"].update({names[0]: second, names[1]: first}))
    assert graphs_of(read_pack(pack), "default-fp32")[0].identity.key != before.key
    assert hashlib.sha256((pack / names[0]).read_bytes()).hexdigest() == before.weights[names[0]]
