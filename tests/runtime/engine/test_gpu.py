"""Variants on a GPU that the CPU stands in for: choice, refusals, full memory."""

from __future__ import annotations

import ctypes
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import CapacityError, Embedder, PackError, Reranker
from embedpack.cli.main import main
from embedpack.engine import encoder
from embedpack.engine.batch_parts import joined_outputs
from embedpack.engine.devices import GEMM_OPTIONS
from embedpack.engine.encoder import Batch, Encoder, LoadedGraph
from embedpack.engine.golden import TEXTS
from embedpack.engine.memory_plan import MAX_GPU_TOKENS, MIN_GPU_TOKENS, batch_bytes, gpu_token_budget
from embedpack.engine.node_assignment import AssignedNode, check_assignment
from embedpack.engine.output_check import OutputCheck
from embedpack.engine.session import Session
from embedpack.engine.weight_sizes import WeightSizes
from embedpack.errors import OptionError
from embedpack.host.gpu import free_memory
from embedpack.inputs.batching import mark_index, pad
from embedpack.inputs.processor import ModelInput, Processor
from embedpack.pack.graph_io import MARK_VECTORS, SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from tests.helpers.broken_packs import Edit, changes, put
from tests.helpers.fake_cuda import FakeCuda
from tests.helpers.tiny_pack import TINY_RERANKER

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
ENCODER = WeightSizes(10**7, 0, 10**7, 1_920, 12)


@pytest.fixture
def gpu(pack: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A GPU; the fp32 variant of `pack` has become one for it."""
    edit(changes(put("variants", "default-fp32", "device", "cuda"), put("variants", "default-fp32", "weights", "fp16")))
    return FakeCuda().install(monkeypatch)


def test_vectors_are_those_of_the_cpu(gpu: FakeCuda, pack: Path) -> None:
    expected = Embedder(pack, weights="fp16", threads=1).encode(TEXTS)
    model = Embedder(pack, device="cuda", threads=1)
    assert (model.device, model.variant) == ("cuda", "default-fp32")
    np.testing.assert_allclose(model.encode(TEXTS).codes, expected.codes, atol=1e-6)
    (name, options), *others = gpu.providers
    assert (name, others) == (CUDA, [CPU])
    assert options["use_tf32"] == "0"


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_codes_are_those_of_the_cpu(gpu: FakeCuda, pack: Path, precision: str) -> None:
    expected = Embedder(pack, weights="fp16", threads=1).encode(TEXTS, precision=precision).codes
    np.testing.assert_array_equal(Embedder(pack, device="cuda", threads=1).encode(TEXTS, precision=precision).codes,
                                  expected)  # fmt: skip


def test_auto_logs_its_choice(gpu: FakeCuda, pack: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "embedpack")
    assert Embedder(pack, device="auto", threads=1).device == "cuda"
    assert f"{pack}: device cuda, chosen by auto" in caplog.messages
    assert Embedder(pack, device="auto", weights="int8", threads=1).device == "cpu"
    assert f"{pack}: device cpu, chosen by auto: no variant that was asked for is for GPUs" in caplog.messages
    gpu.free = None
    assert Embedder(pack, device="auto", threads=1).variant == "default-int8"
    assert any("the driver finds no GPU; check nvidia-smi" in message for message in caplog.messages)


def refusal(error: type[Exception], pack: Path, **options: Any) -> str:
    with pytest.raises(error) as caught:
        Embedder(pack, threads=1, **options)
    return str(caught.value).replace(str(pack), "PACK")


def test_a_device_that_is_none(pack: Path) -> None:
    assert refusal(OptionError, pack, device="tpu").startswith("unknown device 'tpu'; known: cpu, cuda, auto")


def test_cuda_without_its_provider_names_the_extra(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    assert refusal(OptionError, pack, device="cuda") == (
        f"device 'cuda' cannot be used: onnxruntime {ort.__version__} has no {CUDA}, only AzureExecutionProvider, "
        f"{CPU}; run: pip install 'embedpack[gpu]'"
    )
    assert Embedder(pack, device="auto", threads=1).device == "cpu"


@pytest.mark.parametrize("value", ["1", "3", "yes"])
def test_sums_in_float16_are_refused(gpu: FakeCuda, pack: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(GEMM_OPTIONS, value)
    message = f"device 'cuda' cannot be used: {GEMM_OPTIONS}={value} makes products add up in float16; unset it"
    assert refusal(OptionError, pack, device="cuda") == message


def test_a_pack_without_a_variant_for_gpus(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda().install(monkeypatch)
    message = (
        "PACK: has no variant for GPUs; pass device='cpu', or export it with --weights fp16, or --weights int4 "
        "--device cuda"
    )
    assert refusal(OptionError, tiny, device="cuda") == message


def test_int4_may_be_for_gpus(
    pack: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edit(put("variants", "default-int4", "device", "cuda"))
    FakeCuda().install(monkeypatch)
    for device in ("cuda", "auto"):
        assert Embedder(pack, device=device, threads=1).variant == "default-int4"
    assert caplog.messages == []
    assert Embedder(pack, weights="int4", threads=1).device == "cpu"
    assert caplog.messages == [f"{pack}: default-int4 is made for GPUs, and slow on a CPU; pass device='cuda'"]


@pytest.mark.parametrize("options", [{"weights": "int4"}, {"variant": "default-int4"}])
def test_quantized_weights_for_cpus_are_refused(gpu: FakeCuda, pack: Path, options: dict[str, Any]) -> None:
    assert refusal(OptionError, pack, device="cuda", **options) == (
        "PACK: default-int4 has int4 weights for CPUs; pass device='cpu', or export it with --weights fp16, or "
        "--weights int4 --device cuda"
    )
    assert Embedder(pack, device="auto", threads=1, **options).device == "cpu"


def test_a_provider_that_does_not_start_is_an_error(gpu: FakeCuda, pack: Path) -> None:
    gpu.starts = False
    message = refusal(PackError, pack, device="cuda")
    assert message.startswith(f"PACK/default-fp32.onnx: onnxruntime {ort.__version__} could not start {CUDA} and took ")
    assert message.endswith("check the driver, and the libraries of: pip install 'embedpack[gpu]'")


def test_a_node_that_fell_back_is_named(gpu: FakeCuda, pack: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "embedpack")
    Embedder(pack, device="cuda", threads=1)
    (line,) = (message for message in caplog.messages if " nodes on " in message)
    assert line.endswith(" and 0 others on the CPU")
    node = next(each for each in nodes(pack) if each.op_type == "MatMul")
    gpu.on_cpu = (*gpu.on_cpu, node.name)
    message = refusal(PackError, pack, device="cuda")
    assert message == (
        f"PACK/default-fp32.onnx: node {node.name!r} (MatMul) and 0 others run on {CPU}, as {CUDA} has no kernel for "
        "them: take a variant for GPUs, update onnxruntime, or pass device='cpu'"
    )


def nodes(pack: Path) -> list[Any]:
    """Nodes of the fp32 graph."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(str(pack / "default-fp32.onnx"), options, providers=[CPU])
    return [node for group in session.get_provider_graph_assignment_info() for node in group.get_nodes()]


def test_a_node_that_reads_inputs_computes_no_shape(tiny: Path) -> None:
    """A look-up of token ids has the operator of a shape, and is none."""
    content = (tiny / "default-fp32.onnx").read_bytes()
    gathers = [node.name for node in nodes(tiny) if node.op_type == "Gather"]
    refused = 0
    for name in gathers:
        try:
            check_assignment("g.onnx", [AssignedNode(name, "Gather", CPU)], content)
        except PackError:
            refused += 1
    assert refused >= 1


def test_full_memory_halves_the_budget_once(gpu: FakeCuda, pack: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["a cat on the roof"] * 16
    whole = Embedder(pack, device="cuda", threads=1).encode(texts)
    ((rows, longest),) = gpu.batches
    gpu.batches.clear()
    gpu.max_tokens = rows * longest - 1
    model = Embedder(pack, device="cuda", threads=1)
    np.testing.assert_allclose(model.encode(texts).codes, whole.codes, atol=1e-6)
    assert gpu.batches == [(16, longest), (8, longest), (8, longest)]
    assert gpu.shrunk == 2
    assert f"the token budget is now {rows * longest // 2}" in caplog.text
    # Later calls begin with the smaller budget.
    gpu.batches.clear()
    model.encode(texts)
    assert gpu.batches == [(8, longest), (8, longest)]


def test_memory_that_is_still_full_is_an_error(gpu: FakeCuda, pack: Path) -> None:
    gpu.max_tokens = 20
    with pytest.raises(CapacityError, match=r"sentence_embedding cannot be computed: the memory is full"):
        Embedder(pack, device="cuda", threads=1).encode(["a cat on the roof"] * 64)
    assert len(gpu.batches) == 2
    gpu.max_tokens = 2
    with pytest.raises(CapacityError):
        Embedder(pack, device="cuda", threads=1).encode("a cat on the roof")
    assert len(gpu.batches) == 3


def test_weights_that_do_not_fit_are_not_loaded(gpu: FakeCuda, pack: Path) -> None:
    gpu.free = 10**8
    message = refusal(CapacityError, pack, device="cuda")
    assert message.startswith("PACK/default-fp32.onnx: loading it needs about 500 MB of the GPU's memory, 100 MB are ")
    assert gpu.providers == []


@given(
    lengths=st.lists(st.integers(1, 1500), min_size=1, max_size=40), budget=st.integers(16, 8192),
    small=st.sampled_from([0, 512, 4096]),
)  # fmt: skip
def test_runs_have_texts_of_similar_length(lengths: list[int], budget: int, small: int) -> None:
    inputs = [ModelInput(np.zeros(n, np.int64), slice(0, n), np.zeros(n, np.bool_)) for n in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "SMALL_PART", small)
        parts = Batch(np.arange(len(lengths)), inputs).parts(budget)
        assert [len(part.parts(budget)) for part in parts] == [1] * len(parts)
    assert np.concatenate([part.rows for part in parts]).tolist() == list(range(len(lengths)))
    for part in parts:
        assert part.tokens <= budget or len(part.rows) == 1
        if lengths == sorted(lengths, reverse=True) and part.tokens - part.longest >= small:
            assert part.inputs[-1].length >= encoder.SIMILAR_LENGTH * part.longest or len(part.rows) == 1


@pytest.mark.parametrize("output", [SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS, MARK_VECTORS])
def test_outputs_of_parts_are_those_of_the_batch(output: str) -> None:
    """Rows of different lengths and numbers of marks, in budgets for all of them, for some, and for one."""
    lengths, marks = [9, 7, 6, 2, 1], [2, 1, 1, 2, 1]
    inputs = [
        replace(ModelInput(np.arange(1, n + 1), slice(0, n), np.zeros(n, np.bool_)), marks=np.arange(m))
        for n, m in zip(lengths, marks, strict=True)
    ]
    found = []
    for budget in (100, 18, 2):
        session = Echo(output)
        text = LoadedGraph(cast("Session", session), budget, device="cuda")
        model = Encoder(text, cast("Processor", session), OutputCheck(single=3, multi=3))
        ((batch, values),) = model.compute(iter([Batch(np.arange(5), inputs)]), output)
        assert len(batch.rows) == len(values) == 5
        found.append((session.rows, values))
    assert [rows for rows, _ in found] == [[5], [2, 3], [1, 1, 1, 1, 1]]
    for row, (length, number) in enumerate(zip(lengths, marks, strict=True)):
        kept = {SENTENCE_EMBEDDING: 3, TOKEN_EMBEDDINGS: length, MARK_VECTORS: number}[output]
        for _, values in found[1:]:
            np.testing.assert_array_equal(values[row][:kept], found[0][1][row][:kept])


class Echo:
    """A processor and a session whose outputs are the token ids of each row."""

    def __init__(self, output: str) -> None:
        self.output, self.rows = output, list[int]()

    def collate(self, inputs: list[ModelInput], images: list[Any]) -> dict[str, Any]:
        index = mark_index([each.marks for each in inputs], [each.length for each in inputs])
        return {**pad([each.ids for each in inputs], 0), "mark_index": index}

    def run(self, outputs: list[str], feeds: dict[str, Any], *_: Any, **__: Any) -> list[Any]:
        self.rows.append(len(feeds["input_ids"]))
        tokens = np.repeat(feeds["input_ids"][..., None], 3, axis=2).astype(np.float32)
        rows, columns = feeds["mark_index"].T
        results = {SENTENCE_EMBEDDING: tokens.sum(1), TOKEN_EMBEDDINGS: tokens, MARK_VECTORS: tokens[rows, columns]}
        return [results[self.output]]


def test_joined_outputs_are_padded() -> None:
    joined = joined_outputs([np.ones((2, 3, 4), np.float32), np.ones((1, 2, 4), np.float32)])
    assert joined.shape == (3, 3, 4)
    assert joined[2, :, 0].tolist() == [1, 1, 0]
    assert joined_outputs([np.ones(2), np.zeros(1)]).tolist() == [1, 1, 0]


@pytest.mark.parametrize("free", [10**8, 10**9, 10**10, 10**11])
@pytest.mark.parametrize("max_tokens", [128, 8192, 32_768])
def test_batches_of_the_budget_fit(free: int, max_tokens: int) -> None:
    budget = gpu_token_budget(ENCODER, free, max_tokens)
    assert MIN_GPU_TOKENS <= budget <= MAX_GPU_TOKENS
    longest = min(budget, max_tokens)
    if budget > MIN_GPU_TOKENS:
        assert batch_bytes(ENCODER, budget // longest, longest) <= free / 2
    assert budget >= gpu_token_budget(ENCODER, free // 2, max_tokens)
    assert budget >= gpu_token_budget(replace(ENCODER, gpu_score_heads=4), free, max_tokens)


class Driver:
    """A CUDA driver with one GPU; `fails` is the function that returns an error."""

    def __init__(self, fails: str | None = None) -> None:
        self.fails, self.released = fails, 0

    def __getattr__(self, name: str) -> Any:
        def function(*arguments: Any) -> int:
            if name == self.fails:
                return 100
            if name == "cuMemGetInfo_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = 5 * 10**9, 8 * 10**9
            if name == "cuDevicePrimaryCtxRelease_v2":
                self.released += 1
            return 0

        return function


def test_free_memory_is_that_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    assert (free_memory(driver), driver.released) == (5 * 10**9, 1)
    for name in ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2"):
        assert free_memory(Driver(name)) is None
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert free_memory() is None


def test_commands_take_a_device(gpu: FakeCuda, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    assert main(["embed", str(pack), str(tmp_path / "texts.txt"), "--device", "cuda", "--threads", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(gpu.batches[0]) == 2
    with pytest.raises(SystemExit):
        main(["embed", str(pack), str(tmp_path / "texts.txt"), "--device", "tpu"])
    gpu.starts = False
    assert main(["embed", str(pack), str(tmp_path / "texts.txt"), "--device", "cuda"]) == 1
    error = capsys.readouterr().err
    assert "could not start" in error
    assert "Traceback" not in error


def test_golden_vectors_are_compared_on_the_gpu(
    gpu: FakeCuda, pack: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(pack), "--device", "cuda"]) == 0
    assert "default-fp32" in (printed := capsys.readouterr().out)
    assert "default-int8" not in printed
    assert gpu.batches
    assert main(["verify", str(tiny), "--device", "cuda"]) == 2
    assert "has no variant for GPUs; leave out --device cuda" in capsys.readouterr().err


def test_variants_for_gpus_are_prepared_when_they_are_named(
    pack: Path, edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(changes(put("variants", "default-fp32", "device", "cuda"), put("variants", "default-fp32", "weights", "fp16")))
    assert main(["prepare", str(pack), "--cache", str(tmp_path / "cache"), "--threads", "1"]) == 0
    assert "default-fp32" not in capsys.readouterr().out
    assert main(["prepare", str(pack), "--weights", "fp16", "--cache", str(tmp_path / "cache"), "--threads", "1"]) == 0
    assert "default-fp32" in capsys.readouterr().out


def test_rerankers_take_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda().install(monkeypatch)
    with pytest.raises(OptionError, match="has no variant for GPUs"):
        Reranker(TINY_RERANKER, device="cuda", threads=1)
    expected = Reranker(TINY_RERANKER, weights="fp32", threads=1).score("a cat", ["a dog", "a red cat on a roof"])
    model = Reranker(TINY_RERANKER, weights="fp32", device="cuda", threads=1)
    assert model.device == "cuda"
    np.testing.assert_allclose(model.score("a cat", ["a dog", "a red cat on a roof"]), expected, atol=1e-5)


def test_a_cpu_loads_nothing_for_gpus(tiny: Path) -> None:
    code = """
import json, sys
from embedpack import Embedder
Embedder(sys.argv[1], threads=1).encode("a cat")
print(json.dumps([name for name in sys.modules if name in ("embedpack.engine.cuda_session", "embedpack.host.gpu")]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_what_onnxruntime_prints_is_no_output(gpu: FakeCuda, pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.printed = "Failed to load libcudnn.so.9"
    Embedder(pack, device="cuda", threads=1)
    assert capsys.readouterr().out == ""
