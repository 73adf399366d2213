"""Buckets of relative positions, against transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from embedpack_export.graph.towers.relative_bias import RelativeBias


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (32, 64), (16, 20), (8, 128)])
def test_buckets_equal_transformers(buckets: int, max_distance: int) -> None:
    distances = np.arange(-600, 601, dtype=np.int64)
    bucket: Any = MPNetEncoder.relative_position_bucket
    expected = bucket(torch.from_numpy(distances), buckets, max_distance)
    np.testing.assert_array_equal(RelativeBias("bias", buckets, max_distance).of(distances), expected.numpy())
