"""Scaled rotary frequencies against those of transformers."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpack_export.graph.towers.rope_scaling import RopeScaling
from embedpack_export.graph.towers.rotary import RotaryTable

FACTORS = st.floats(1, 64)
LENGTHS = st.sampled_from([16, 512, 4096, 32_768])
KINDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "dynamic": st.fixed_dictionaries({"factor": FACTORS}),
    "linear": st.fixed_dictionaries({"factor": FACTORS}),
    "llama3": st.fixed_dictionaries(
        {
            "factor": FACTORS,
            "low_freq_factor": st.floats(0.5, 2),
            "high_freq_factor": st.floats(2.5, 8),
            "original_max_position_embeddings": LENGTHS,
        }
    ),
    "yarn": st.fixed_dictionaries(
        {"factor": FACTORS, "original_max_position_embeddings": LENGTHS},
        optional={
            "attention_factor": st.floats(0.5, 2),
            "beta_fast": st.floats(8, 64),
            "beta_slow": st.floats(0.5, 8),
            "mscale": st.sampled_from([None, 0.0, 0.707, 1.0]),
            "mscale_all_dim": st.sampled_from([None, 0.0, 0.5, 1.0]),
            "truncate": st.booleans(),
        },
    ),
}


def of_transformers(head_size: int, scaling: dict[str, Any], theta: float) -> tuple[Any, float]:
    from transformers import Qwen2Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = Qwen2Config(
        hidden_size=head_size,
        num_attention_heads=1,
        max_position_embeddings=131_072,
        rope_parameters={"rope_theta": theta, **scaling},
    )
    frequencies, amplitude = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config)
    return frequencies.numpy(), amplitude


@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_equal_those_of_transformers(kind: str) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(KINDS[kind], st.sampled_from([8, 24, 64, 128]), st.sampled_from([500.0, 10_000.0, 1e6]))
    def check(values: dict[str, Any], head_size: int, theta: float) -> None:
        scaling = {"rope_type": kind, **values}
        table = RotaryTable(head_size, theta, scaling=msgspec.convert(scaling, RopeScaling))
        expected, amplitude = of_transformers(head_size, scaling, theta)
        # The rounding of a ramp near 0 counts relative to a frequency that the factor divides.
        np.testing.assert_allclose(table.frequencies()[0, 0, 0], expected, rtol=5e-7 * values["factor"])
        assert table.amplitude == pytest.approx(amplitude, rel=1e-12)

    check()


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_a_scaling_changes_frequencies(kind: str) -> None:
    values = {"factor": 8.0}
    if kind != "linear":
        values["original_max_position_embeddings"] = 64
    if kind == "llama3":
        values |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling = msgspec.convert({"rope_type": kind, **values}, RopeScaling)
    plain, scaled = (RotaryTable(16, 1e4, scaling=found).frequencies() for found in (None, scaling))
    assert scaled.min() == pytest.approx(plain.min() / 8)
    assert (scaled.max() == plain.max()) == (kind != "linear")
