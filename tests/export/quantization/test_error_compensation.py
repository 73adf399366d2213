"""Inputs of layers after quantized ones are measured, and weights are corrected for their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack.vectors.arrays import Float32
from embedpack_export import pipeline
from embedpack_export.graph.context import Activation, GraphContext, LinearLayer
from embedpack_export.graph.formats.fp32 import Fp32
from embedpack_export.quantization.activation_file import ActivationFile, TokenActivations
from embedpack_export.quantization.error_compensation import LayerBatch, QuantizedInputStats
from embedpack_export.quantization.gptq import regression
from embedpack_export.stages.calibration_run import real_tokens
from tests.helpers.exports import query_update, quick, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint

BOUNDS = (0, 70, 71, 400, 900)


def random(rows: int, columns: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def batches(tokens: Float32) -> list[Float32]:
    return [tokens[start:stop] for start, stop in pairwise(BOUNDS)]


def quantized_input(tokens: Float32, seed: int = 1) -> Float32:
    """Inputs of a quantized graph: mixed a little, noisy, and moved."""
    size = tokens.shape[1]
    mixed = tokens @ (np.eye(size, dtype=np.float32) + random(size, size, seed) * np.float32(0.05))
    return mixed + random(len(tokens), size, seed + 1) * np.float32(0.2) + np.float32(0.3)


def text_weights(count: int) -> Float32:
    """Weights of the tokens of texts that have 1, 2, ... tokens, and one text of the rest; [n, 1]."""
    lengths = [length for length in range(1, count) if length * (length + 1) // 2 <= count]
    lengths += [count - sum(lengths)] if sum(lengths) < count else []
    return (1 / np.repeat(lengths, lengths))[:, None].astype(np.float32)


def statistics(exact: Float32, quantized: Float32, residual_error: Float32 | None = None) -> QuantizedInputStats:
    residual_error = np.empty((len(exact), 0), np.float32) if residual_error is None else residual_error
    parts = zip(
        batches(exact), batches(text_weights(len(exact))), batches(quantized), batches(residual_error), strict=True
    )
    return QuantizedInputStats.of(
        exact.mean(0), (LayerBatch(TokenActivations(values, share), *rest) for values, share, *rest in parts)
    )


def token_weights(exact: Float32) -> npt.NDArray[np.float64]:
    """Weight of each token: that of its text over its squared length, [n]."""
    return text_weights(len(exact))[:, 0] / np.square(exact.astype(np.float64)).sum(1)


# --- files


def test_a_file_gives_back_what_it_took(tmp_path: Path) -> None:
    file = ActivationFile(tmp_path / "site", 5)
    given = [TokenActivations(random(rows, 5, seed), random(rows, 1, seed + 9)) for seed, rows in enumerate((3, 1, 7))]
    for flow, tokens in zip((0, 0, 1), given, strict=True):
        file.add(flow, tokens)
    assert file.batches == (2, 1)
    for _ in range(2):
        for read, tokens in zip(file, given, strict=True):
            np.testing.assert_array_equal(read.values, tokens.values)
            np.testing.assert_array_equal(read.token_weights, tokens.token_weights)


def test_a_file_begins_empty_where_another_was(tmp_path: Path) -> None:
    ActivationFile(tmp_path / "site", 5).add(0, TokenActivations(random(3, 5), text_weights(3)))
    file = ActivationFile(tmp_path / "site", 2)
    file.add(0, TokenActivations(random(4, 2), text_weights(4)))
    (read,) = file
    np.testing.assert_array_equal(read.values, random(4, 2))


def test_all_tokens_of_a_text_together_count_1() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])
    values = random(8, 5).reshape(2, 4, 5)
    tokens = real_tokens({"attention_mask": mask}, values)
    np.testing.assert_array_equal(tokens.values, values[mask.astype(bool)])
    np.testing.assert_allclose(tokens.token_weights[:, 0], [1 / 3, 1 / 3, 1 / 3, 1], rtol=1e-6)
    # Tokens that no other attends to are real ones too.
    filled = real_tokens({"attention_mask": mask}, values, np.array([4, 2]))
    np.testing.assert_array_equal(filled.values, values.reshape(8, 5)[:6])
    np.testing.assert_allclose(filled.token_weights[:, 0], [1 / 4] * 4 + [1 / 2] * 2, rtol=1e-6)
    image = real_tokens({"patches": values}, values[0])
    np.testing.assert_array_equal(image.values, values[0])
    np.testing.assert_allclose(image.token_weights, np.full((4, 1), 0.25))


# --- covariances


def test_statistics_are_those_of_all_tokens_at_once() -> None:
    exact = random(900, 12)
    quantized, residual_error = quantized_input(exact), random(900, 3, seed=8)
    stats = statistics(exact, quantized, residual_error)
    weights = token_weights(exact)
    every = np.hstack([exact - quantized, residual_error, quantized]).astype(np.float64)
    together = np.cov(every, rowvar=False, ddof=0, aweights=weights)
    np.testing.assert_allclose(stats.input_error_cov[0], together[:12, 15:], atol=1e-5)
    np.testing.assert_allclose(stats.residual_error_cov, together[12:15, 15:], atol=1e-5)
    np.testing.assert_allclose(stats.covariance[0], together[15:, 15:], atol=1e-5)
    np.testing.assert_allclose(stats.exact_mean, np.average(exact, axis=0, weights=weights), atol=1e-5)
    np.testing.assert_allclose(stats.mean, np.average(quantized, axis=0, weights=weights), atol=1e-5)
    np.testing.assert_allclose(stats.residual_error, np.average(residual_error, axis=0, weights=weights), atol=1e-5)
    assert stats.tokens == 900


def test_channels_of_different_blocks_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack_export.quantization.covariances.COVARIANCE_CHANNELS", 5)
    exact = random(900, 12)
    parts = statistics(exact, quantized_input(exact))
    monkeypatch.setattr("embedpack_export.quantization.covariances.COVARIANCE_CHANNELS", 12)
    whole = statistics(exact, quantized_input(exact))
    for start, covariance, lost in zip((0, 5, 10), parts.covariance, parts.input_error_cov, strict=True):
        block = slice(start, start + len(lost))
        np.testing.assert_allclose(covariance, whole.covariance[0][block, block], atol=1e-6)
        np.testing.assert_allclose(lost, whole.input_error_cov[0][block, block], atol=1e-6)


def test_channels_far_from_zero_keep_their_covariance() -> None:
    """Decoders have channels that hardly move, thousands away from zero."""
    exact = random(900, 6)
    quantized = quantized_input(exact)
    far = np.array([0, 0, 3000, 0, 0, 0], np.float32)
    moved = statistics(exact + far, quantized + far)
    # The length of the tokens is that of the far channel.
    together = np.cov(np.hstack([exact - quantized, quantized]), rowvar=False, ddof=0, aweights=text_weights(900)[:, 0])
    np.testing.assert_allclose(moved.input_error_cov[0], together[:6, 6:], atol=1e-2)
    np.testing.assert_allclose(moved.covariance[0], together[6:, 6:], atol=1e-2)


# --- weights that make up


def corrected(stats: QuantizedInputStats, weights: Float32) -> Float32:
    return weights + regression(stats.roundings(), stats.correction(weights, slice(0, len(weights))))


def output_error(exact: Float32, error: Float32) -> float:
    """Mean squared error of outputs around its mean, tokens weighted as calibration does."""
    around = error - np.average(error, axis=0, weights=token_weights(exact))
    return float(np.average(np.square(around).sum(1), weights=token_weights(exact)))


@pytest.mark.parametrize(("block", "share"), [(2048, 0.9), (5, 0.95)])
def test_weights_that_make_up_lose_less(monkeypatch: pytest.MonkeyPatch, block: int, share: float) -> None:
    monkeypatch.setattr("embedpack_export.quantization.covariances.COVARIANCE_CHANNELS", block)
    exact, weights = random(900, 12), random(7, 12, seed=5)
    quantized = quantized_input(exact)
    compensated = corrected(statistics(exact, quantized), weights)
    before, after = (output_error(exact, exact @ weights.T - quantized @ matrix.T) for matrix in (weights, compensated))
    assert after < share * before


def test_weights_make_up_for_the_residual_error() -> None:
    """The residual error is a linear function of the input, plus a little noise."""
    exact, weights = random(900, 12), random(7, 12, seed=5)
    residual_error = exact @ random(7, 12, seed=6).T + random(900, 7, seed=7) * np.float32(0.1)
    compensated = corrected(statistics(exact, exact, residual_error), weights)
    before, after = (
        output_error(exact, exact @ (weights - matrix).T + residual_error) for matrix in (weights, compensated)
    )
    assert after < 0.1 * before


def test_chunks_of_rows_make_up_for_their_own_part() -> None:
    exact, weights = random(900, 12), random(7, 12, seed=5)
    stats = statistics(exact, quantized_input(exact), random(900, 7, seed=7))
    whole = stats.correction(weights, slice(0, 7))
    for rows in (slice(0, 3), slice(3, 7)):
        np.testing.assert_allclose(stats.correction(weights[rows], rows), whole[rows], atol=1e-5)


def test_what_can_be_undone_is_undone() -> None:
    """Mixed channels are separated again, but for the damping."""
    exact, weights = random(900, 12), random(7, 12, seed=5)
    mix = np.eye(12, dtype=np.float32) + random(12, 12, seed=1) * np.float32(0.1)
    compensated = corrected(statistics(exact, exact @ mix), weights)
    undone = weights @ np.linalg.inv(mix).T
    assert np.linalg.norm(compensated - undone) < 0.4 * np.linalg.norm(weights - undone)


def test_nothing_lost_changes_nothing() -> None:
    exact, weights = random(900, 12), random(7, 12, seed=5)
    stats = statistics(exact, exact)
    np.testing.assert_array_equal(corrected(stats, weights), weights)
    np.testing.assert_allclose(stats.mean, stats.exact_mean, atol=1e-7)


def test_few_tokens_are_damped_more() -> None:
    """A chance correlation is not used for a correction."""
    weights, moved = random(7, 64, seed=5), []
    for count in (900, 50):
        exact = random(count, 64)
        compensated = corrected(statistics(exact, exact, random(count, 7, seed=7)), weights)
        moved.append(np.linalg.norm(compensated - weights) / np.linalg.norm(weights) * count**0.5)
    assert moved[1] < 1.2 * moved[0]


# --- what arrives, in a graph


@dataclass
class Watching(Fp32):
    """Linear layers in float32 that compare their input with the recorded one: here both are equal.

    `tolerance` is relative to the largest value.
    """

    tolerance: float = 1e-5
    seen: list[str] = field(default_factory=list)

    def linears(self, context: GraphContext, x: Activation, layers: Sequence[LinearLayer]) -> list[list[ir.Value]]:
        file = context.statistics[x.site].activations
        assert file is not None
        assert context.written is not None
        for exact, (quantized,) in zip(file, context.written([x.value], file.batches), strict=True):
            np.testing.assert_allclose(quantized, exact.values, atol=self.tolerance * float(np.abs(exact.values).max()))
        self.seen.append(x.site)
        return super().linears(context, x, layers)


def adapters(folder: Path) -> dict[str, Path]:
    return {task: write_adapter(folder / task, query_update(seed=seed)) for seed, task in enumerate(("a", "b"))}


@pytest.mark.parametrize(("modes", "tolerance"), [(("merged",), 1e-5), (("switchable",), 5e-3)])
def test_what_arrives_is_what_the_written_part_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modes: tuple[str, ...], tolerance: float
) -> None:
    """Of two tasks, each with its own weights, or with its adapter as an input, in float16."""
    watching = Watching("int4", tolerance)
    monkeypatch.setattr("embedpack_export.planning.plan.linear_formats", lambda method, device: {"int4": watching})
    checkpoint = make_checkpoint(tmp_path / "toy")
    settings = quick(checkpoint, tmp_path / "pack", weights=("int4",), adapters=adapters(tmp_path), adapter_modes=modes)
    pipeline.export(settings)
    sites = {"encoder.layer.0.attention.mixed", "encoder.layer.1.intermediate.active", "embeddings.LayerNorm"}
    assert sites <= set(watching.seen)


def test_what_arrives_in_a_model_that_reads_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Watching("int4")
    monkeypatch.setattr("embedpack_export.planning.plan.linear_formats", lambda method, device: {"int4": watching})
    checkpoint = make_v4(tmp_path / "toy")
    pipeline.export(quick(checkpoint, tmp_path / "pack", weights=("int4",)))
    assert any(site.startswith("visual.merger") for site in watching.seen)
    assert any(site.startswith("layers.0.mlp") for site in watching.seen)
