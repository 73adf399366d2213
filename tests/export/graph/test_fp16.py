"""Products in float16, of fp16 weights and int4 weights for GPUs: closeness to float32, stored types, ranges."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack import CheckpointError, Embedder, PackError
from embedpack.engine.golden import TEXTS
from embedpack.engine.golden_image import golden_image
from embedpack.engine.node_assignment import AssignedNode, check_assignment
from embedpack.errors import OptionError
from embedpack.inputs.items import Input
from embedpack.pack.accuracy_records import Headroom
from embedpack.pack.folder import read_pack
from embedpack.pack.graph_io import SENTENCE_EMBEDDING
from embedpack.vectors.codes import quantize
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.float16_range import MAX_FLOAT16, MIN_HEADROOM, _largest_sum
from embedpack_export.pipeline import export
from tests.helpers.exports import distance, edit_tensors, exactly, quick
from tests.helpers.fake_cuda import FakeCuda
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder

MAKERS: dict[str, Callable[[Path], Path]] = {"bert": make_checkpoint, "qwen2": make_decoder, "v4": make_v4}
LARGEST = MAX_FLOAT16 / MIN_HEADROOM
OUTPUT = "encoder.layer.0.output.dense"


@pytest.fixture(scope="module", params=MAKERS)
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, a decoder, and a decoder with images and switchable adapters, in all formats for GPUs."""
    folder = tmp_path_factory.mktemp(request.param)
    mode = "switchable" if request.param == "v4" else "merged"
    export(
        quick(
            MAKERS[request.param](folder / "toy"), folder / "pack", weights=("fp32", "fp16", "int4"), device="cuda",
            adapter_modes=(mode,),
            pooling=None if request.param == "v4" else "mean",
            tasks=("retrieval", "code") if request.param == "v4" else (),
        )
    )  # fmt: skip
    return folder / "pack"


@pytest.mark.parametrize(("weights", "limit"), [("fp16", 1e-3), ("int4", 0.1)])
def test_vectors_are_close_to_those_of_float32(pack: Path, weights: str, limit: float) -> None:
    manifest = read_pack(pack).manifest
    inputs: list[Input] = [*TEXTS, *([] if manifest.image is None else [golden_image()])]
    task = next(iter(manifest.tasks))
    exact, found = (
        Embedder(pack, weights=each, threads=1).encode(inputs, task=task if manifest.image else None).codes
        for each in ("fp32", weights)
    )
    assert 0 < distance(found, exact) < limit


@pytest.mark.parametrize("pack", ["bert"], indirect=True)
def test_vectors_are_close_where_products_are_rounded(pack: Path) -> None:
    """Onnxruntime leaves the casts out on CPUs; the reference implementation of onnx rounds inputs and outputs."""
    model = Embedder(pack, weights="fp16", threads=1)
    processor = model._encoder.processor
    feeds = processor.collate(processor.process(processor.items(TEXTS), ""), [])
    (halves,) = ReferenceEvaluator(str(pack / "default-fp16.onnx")).run([SENTENCE_EMBEDDING], dict(feeds))
    exact = Embedder(pack, weights="fp32", threads=1).encode(TEXTS, prompt_name="").codes
    assert 0 < distance(halves, exact) < 1e-3


@pytest.mark.parametrize(("weights", "product"), [("fp16", "MatMul"), ("int4", "MatMulNBits")])
def test_only_products_are_float16(pack: Path, weights: str, product: str) -> None:
    """The residual stream, norms, softmax of encoders, heads and the vision graph are float32."""
    manifest = read_pack(pack).manifest
    (name,) = (name for name, variant in manifest.variants.items() if variant.weights == weights)
    variant = manifest.variants[name]
    graph = ir.load(pack / variant.graph).graph
    halves = {value for value in graph.initializers.values() if value.dtype == ir.DataType.FLOAT16}
    for node in graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16:
            halves.add(node.outputs[0])
    readers = {node.op_type for node in graph if halves & set(node.inputs)}
    assert {product} <= readers <= {product, "GroupQueryAttention", "Gather", "Cast"}
    assert variant.device == "cuda"
    assert variant.accuracy.headroom is not None
    assert variant.accuracy.headroom.factor >= MIN_HEADROOM
    assert f"weights/{weights}.bin" in variant.external_data
    assert all("fp16" not in file for vision in manifest.vision.values() for file in vision.external_data)


@pytest.mark.parametrize("pack", ["bert"], indirect=True)
def test_the_default_is_one_for_the_device(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Embedder(pack, threads=1).variant == "default-fp32"
    FakeCuda().install(monkeypatch)
    for device in ("cuda", "auto"):
        assert Embedder(pack, device=device, threads=1).variant == "default-fp16"
        assert Embedder(pack, device=device, weights="int4", threads=1).variant == "default-int4"


@pytest.mark.parametrize("weights", ["fp16", "int4"])
def test_adapters_of_a_gpu_are_copied_to_it_once(pack: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    """Every task by its own adapter, and images, as on the CPU; the GPU is the CPU in another name."""
    manifest = read_pack(pack).manifest
    inputs: list[Input] = [*TEXTS[:3], *([] if manifest.image is None else [golden_image()])]
    tasks = list(manifest.tasks)
    model = Embedder(pack, weights=weights, threads=1)
    expected = [model.encode(inputs, task=task if len(tasks) > 1 else None).codes for task in tasks]
    gpu = FakeCuda().install(monkeypatch)
    model = Embedder(pack, weights=weights, device="cuda", threads=1)
    files = manifest.variants[model.variant].adapter_files
    assert (gpu.copied > 0) == bool(files)
    copied = gpu.copied
    for _ in range(2):
        for task, vectors in zip(tasks, expected, strict=True):
            found = model.encode(inputs, task=task if len(tasks) > 1 else None).codes
            assert distance(found, vectors) < 1e-6
    assert gpu.copied == copied
    assert len({vectors.tobytes() for vectors in expected}) == len(tasks)


def test_codes_are_those_of_the_vectors(pack: Path) -> None:
    manifest = read_pack(pack).manifest
    model = Embedder(pack, weights="fp16", threads=1)
    task = next(iter(manifest.tasks))
    vectors, codes = (
        model.encode(TEXTS, task=task if len(manifest.tasks) > 1 else None, precision=precision).codes
        for precision in ("float32", "int8")
    )
    single = manifest.spaces[manifest.tasks[task].space or ""].single
    assert single is not None
    np.testing.assert_array_equal(codes, quantize(vectors, "int8", single.int8_scale))


@pytest.mark.parametrize(("of_shape", "refused"), [(True, False), (False, True)])
def test_sizes_of_blocks_may_be_computed_on_the_cpu(tmp_path: Path, of_shape: bool, refused: bool) -> None:
    """As those of local attention: whole numbers from shapes alone, compared and calculated with."""
    graph = GraphBuilder("sizes", WeightStore(tmp_path))
    ids = graph.input("input_ids", ir.DataType.INT64, ["batch", "sequence"])
    length = graph.op("Squeeze", [graph.op("Shape", [ids], {"start": 1, "end": 2})]) if of_shape else ids
    long = graph.op(
        "Cast", [graph.op("Greater", [length, graph.constant(9, np.int64)])], {"to": int(ir.DataType.INT64)}
    )
    graph.output(graph.op("Mul", [long, length]), "size", ir.DataType.INT64, [])
    ir.save(graph.build(), tmp_path / "sizes.onnx")
    on_cpu = [AssignedNode(name, kind, "CPUExecutionProvider") for name, kind in named_nodes(tmp_path / "sizes.onnx")]
    with pytest.raises(PackError, match=r"\(Greater\) and 2 others run on CPU") if refused else nullcontext():
        check_assignment("sizes.onnx", on_cpu, (tmp_path / "sizes.onnx").read_bytes())


def named_nodes(path: Path) -> list[tuple[str, str]]:
    return [(node.name or "", node.op_type) for node in ir.load(path).graph]


@pytest.mark.parametrize("pack", ["v4"], indirect=True)
def test_the_vision_graph_of_fp16_is_that_of_float32(pack: Path) -> None:
    exact, halves = (Embedder(pack, weights=weights, threads=1)._encoder for weights in ("fp32", "fp16"))
    (item,) = exact.processor.process(exact.processor.items([golden_image()]), "")
    assert item.image is not None
    np.testing.assert_allclose(halves._image_embeds(item.image), exact._image_embeds(item.image), atol=1e-5)


def scaled(checkpoint: Path, name: str, factor: float) -> Path:
    """A checkpoint with a tensor that is multiplied by a factor."""
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors.update({name: tensors[name] * factor}))
    return checkpoint


@pytest.mark.parametrize("options", [("--weights", "fp16"), ("--weights", "int4", "--device", "cuda")])
@pytest.mark.parametrize(
    ("tensor", "place"),
    [
        (f"{OUTPUT}.weight", f"output of {OUTPUT} reaches "),
        (f"{OUTPUT}.bias", f"output of {OUTPUT} reaches "),
        ("encoder.layer.0.attention.output.LayerNorm.weight", "encoder.layer.0.attention.output.LayerNorm reaches "),
    ],
)
def test_a_graph_without_headroom_is_refused(tmp_path: Path, tensor: str, place: str, options: tuple[str, ...]) -> None:
    checkpoint = scaled(make_checkpoint(tmp_path / "toy"), tensor, 3e5)
    with pytest.raises(CheckpointError) as caught:
        export(quick(checkpoint, tmp_path / "pack", weights=(options[1],), device="cuda"))
    assert str(caught.value).startswith(place)
    assert str(caught.value).endswith(
        "on the calibration texts; float16 ends at 65504, and 4 times the largest value must fit: leave out "
        + " ".join(options)
    )
    assert float(str(caught.value).split(" reaches ")[1].split()[0]) > LARGEST
    assert not (tmp_path / "pack").exists()


def test_a_weight_that_float16_does_not_have_is_refused(tmp_path: Path) -> None:
    name = "embeddings.word_embeddings.weight"
    checkpoint = make_checkpoint(tmp_path / "toy")
    edit_tensors(checkpoint / "model.safetensors", lambda tensors: tensors[name].__setitem__((0, 0), 7e4))
    with pytest.raises(CheckpointError, match=rf"^{name}: a weight is 70000, and float16 ends at 65504"):
        export(quick(checkpoint, tmp_path / "pack", weights=("fp16",)))


def test_headroom_is_that_of_the_largest_value(pack: Path) -> None:
    exact, halves, blocks = (variant.accuracy.headroom for variant in read_pack(pack).manifest.variants.values())
    assert exact is None
    assert halves is not None
    assert blocks is not None
    # Partial sums of products may be larger than the sums.
    assert (blocks.products, blocks.largest >= halves.largest) == (halves.products, True)
    for found in (halves, blocks):
        check_headroom(pack, found)


def check_headroom(pack: Path, found: Headroom) -> None:
    np.testing.assert_allclose(found.factor, MAX_FLOAT16 / found.largest, rtol=0.05)
    assert found.products > 0
    assert found.value
    page = (pack / "report/index.html").read_text()
    assert f"{found.factor:,.1f}" in page
    assert found.value in page


@given(st.integers(0, 2**32 - 1))
def test_no_partial_sum_exceeds_the_range(seed: int) -> None:
    """Of terms in any order, for weights and tokens of both signs; the sum itself may be as small as 0."""
    rng = np.random.default_rng(seed)
    tokens, rows = rng.standard_normal((3, 8)).astype(np.float32), rng.standard_normal((2, 8)).astype(np.float32)
    found = _largest_sum(tokens, rows, half_sums=True)
    terms = (tokens[:, None] * rows)[..., rng.permutation(8)]
    assert np.abs(terms.cumsum(-1)).max() <= found * (1 + 1e-5)
    ordered = np.sort(terms, -1)
    largest = max(np.abs(ordered.cumsum(-1)).max(), np.abs(ordered[..., ::-1].cumsum(-1)).max())
    np.testing.assert_allclose(found, largest, rtol=1e-5)
    assert _largest_sum(tokens, rows, half_sums=False) <= found * (1 + 1e-5)


@pytest.mark.parametrize(("device", "weights"), [("cuda", ("fp32", "int8")), ("cpu", ("fp16",))])
def test_a_device_that_no_weights_are_for(tmp_path: Path, device: str, weights: tuple[str, ...]) -> None:
    message = f"--device {device}: no weights format of {', '.join(weights)} is for it; add --weights int4"
    with pytest.raises(OptionError, match=exactly(message)):
        quick(tmp_path / "toy", tmp_path / "pack", weights=weights, device=device)
