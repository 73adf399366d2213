"""One linear layer in 4 bits, for CPUs and for GPUs: what is stored, what it computes, and what calibration saves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack.pack.variants import Device
from embedpack.vectors.arrays import Float32
from embedpack_export.arrays import Matrix
from embedpack_export.graph.builder import GraphBuilder
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.int4 import Int4
from embedpack_export.graph.formats.int4_cuda import HalfScales, Int4Cuda
from embedpack_export.quantization.activation_file import ActivationFile, TokenActivations
from embedpack_export.quantization.gptq import RoundingMethod
from embedpack_export.quantization.statistics import SiteStatistics
from embedpack_export.sources.weights import Weights
from tests.helpers.onnx_probe import run_model

TOKENS, ROWS = 3000, 24


@dataclass(frozen=True)
class Case:
    """A layer with bias; its input in float32, and after quantized layers."""

    columns: int = 96
    device: Device = "cpu"

    @property
    def matrix(self) -> Float32:
        return np.random.default_rng(1).standard_normal((ROWS, self.columns)).astype(np.float32)

    @property
    def bias(self) -> Float32:
        return np.random.default_rng(2).standard_normal(ROWS).astype(np.float32)

    def tokens(self) -> tuple[Float32, Float32]:
        """Correlated channels; the quantized input is smaller in some directions, moved, and a little noisy."""
        rng = np.random.default_rng(3)
        few = rng.standard_normal((TOKENS, self.columns // 4)) @ rng.standard_normal((self.columns // 4, self.columns))
        exact = (few + rng.standard_normal(few.shape) * 0.5 + 1).astype(np.float32)
        mix = np.eye(self.columns) + rng.standard_normal((self.columns, self.columns)) * 0.01
        arrived = exact @ mix + rng.standard_normal(exact.shape) * 0.1 + 0.2
        return exact, arrived.astype(np.float32)

    def write(self, folder: Path, method: RoundingMethod = "gptaq") -> str:
        """The graph of the layer."""
        exact, arrived = self.tokens()
        folder.mkdir()
        file = ActivationFile(folder / "site", self.columns)
        file.add(0, TokenActivations(exact, np.full((TOKENS, 1), 1 / TOKENS, np.float32)))
        # Of the statistics, this format reads the mean and the file.
        seen = SiteStatistics(exact.mean(0), exact.min(0), exact.max(0), (), exact[:5], len(exact), file)
        graph = GraphBuilder("one", WeightStore(folder))
        x = graph.input("x", ir.DataType.FLOAT, ["batch", "sequence", self.columns])
        context = GraphContext(
            graph,
            {},
            cast("Weights", None),
            Int4(method) if self.device == "cpu" else Int4Cuda(method),
            {"site": seen},
            written=lambda values, batches: iter([[arrived] for _ in values] if batches == (1,) else []),
        )
        matrix = self.matrix
        layer = LinearLayer(Matrix("layer.weight", matrix.shape, lambda rows: matrix[rows]), self.bias)
        (y,) = context.linears(Activation("site", lambda: x), layer)
        graph.output(y, "y", ir.DataType.FLOAT, ["batch", "sequence", ROWS])
        path = folder / "one.onnx"
        ir.save(graph.build(), path)
        return str(path)


def stored(path: str) -> dict[str, npt.NDArray[Any]]:
    values = ir.load(path).graph.initializers.values()
    return {str(value.name): value.const_value.numpy().copy() for value in values if value.const_value is not None}


def rounded(tensors: dict[str, npt.NDArray[Any]], columns: int) -> npt.NDArray[np.float64]:
    """Weights dequantized by hand from the stored tensors."""
    packed = tensors["layer.weight.int4"]
    integers = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.float64).reshape(ROWS, -1, 32) - 8
    scales = tensors["layer.weight.scales"].astype(np.float64) * tensors.get("layer.weight.steps", 1)
    return (integers * scales[..., None]).reshape(ROWS, -1)[:, :columns]


def run(path: str, tokens: Float32) -> Float32:
    return cast("Float32", run_model(path, ["y"], {"x": tokens[None]})[0][0])


def error(case: Case, path: str) -> float:
    """Mean squared error of the outputs for the quantized input, each token relative to its size."""
    exact, arrived = case.tokens()
    tensors = stored(path)
    wanted = exact @ case.matrix.T.astype(np.float64) + case.bias
    found = arrived @ rounded(tensors, case.columns).T + tensors["layer.bias"]
    return float(np.mean(np.square(wanted - found).sum(1) / np.square(exact).sum(1)))


# Largest relative error of the kernel: on CPUs it quantizes activations to 8 bits, in graphs for GPUs it rounds inputs
# and outputs to float16.
@pytest.mark.parametrize("columns", [96, 100, 384])
@pytest.mark.parametrize(("device", "limit"), [("cpu", 0.01), ("cuda", 0.001)])
def test_the_graph_multiplies_by_the_weights_that_are_stored(
    tmp_path: Path, columns: int, device: Device, limit: float
) -> None:
    case = Case(columns, device)
    path = case.write(tmp_path / "one")
    tensors = stored(path)
    _, arrived = case.tokens()
    expected = arrived[:50] @ rounded(tensors, columns).T + tensors["layer.bias"]
    assert np.linalg.norm(run(path, arrived[:50]) - expected) < limit * np.linalg.norm(expected)


@pytest.mark.parametrize(("device", "columns"), [("cpu", 384), ("cpu", 1536), ("cuda", 384)])
def test_a_weight_takes_no_more_than_its_part_of_the_scales_beside_4_bits(
    tmp_path: Path, device: Device, columns: int
) -> None:
    tensors = stored(Case(columns, device).write(tmp_path / "one"))
    size = sum(tensors[name].nbytes for name in tensors if name != "layer.bias")
    bits = 8 * size / (ROWS * columns)
    assert bits == (4 + 8 / 32 + 32 / columns if device == "cpu" else 4 + 16 / 32)
    assert bits <= 4.6


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_calibration_lowers_the_error_step_by_step(tmp_path: Path, device: Device) -> None:
    case = Case(device=device)
    methods: tuple[RoundingMethod, ...] = ("rtn", "gptq", "gptaq")
    rtn, gptq, gptaq = (error(case, case.write(tmp_path / name, name)) for name in methods)
    assert gptq < 0.7 * rtn
    assert gptaq < 0.9 * gptq


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_mean_error_is_none(tmp_path: Path, device: Device) -> None:
    """For tokens of equal weight: rounding and earlier errors move no output on average."""
    case = Case(device=device)
    exact, arrived = case.tokens()
    tensors = stored(case.write(tmp_path / "one"))
    weights = 1 / np.square(exact.astype(np.float64)).sum(1)
    wanted = exact @ case.matrix.T.astype(np.float64) + case.bias
    found = arrived @ rounded(tensors, case.columns).T + tensors["layer.bias"]
    np.testing.assert_allclose(np.average(found - wanted, axis=0, weights=weights), 0, atol=2e-3)


def test_the_same_layer_is_written_the_same_way_again(tmp_path: Path) -> None:
    first, second = (stored(Case().write(tmp_path / name)) for name in ("first", "second"))
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


@given(st.lists(st.floats(2**-149, 60_000, width=32), min_size=1), st.sampled_from([-1, 1]))
def test_scales_of_float16_keep_their_sign_and_are_never_0(values: list[float], sign: int) -> None:
    scales = np.array([values], np.float32) * sign
    found = HalfScales.of(scales).values
    assert (np.sign(found) == np.sign(scales)).all()
    np.testing.assert_allclose(found, scales, rtol=2**-11, atol=2**-24)
