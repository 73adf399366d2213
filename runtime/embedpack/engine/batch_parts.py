"""Outputs of the parts of a batch as those of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedpack.engine.session import Array


def joined_outputs(outputs: Sequence[Array]) -> Array:
    """Join outputs [rows, ...]; those [rows, tokens or parts, dimensions] are padded with zeros to the longest."""
    if outputs[0].ndim < 3:
        return np.concatenate(outputs)
    longest = max(values.shape[1] for values in outputs)
    return np.concatenate([np.pad(values, ((0, 0), (0, longest - values.shape[1]), (0, 0))) for values in outputs])
