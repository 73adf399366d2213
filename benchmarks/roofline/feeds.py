"""Inputs of a text graph: random token ids without padding."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.workloads import Shape
from embedpack.engine.loading import open_processor
from embedpack.engine.session import Feeds
from embedpack.errors import InputError
from embedpack.inputs.processor import ModelInput
from embedpack.pack.folder import Pack


def random_feeds(pack: Pack, shape: Shape, seed: int) -> Feeds:
    """Feeds of a batch of rows x tokens.

    Raises:
        InputError: the model takes fewer tokens.
    """
    rows, tokens = shape
    text = pack.manifest.text
    if tokens > text.max_tokens:
        raise InputError(f"{rows}x{tokens}: this model takes at most {text.max_tokens} tokens")
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, text.vocabulary, (rows, tokens))
    inputs = [ModelInput(row, slice(0, tokens), np.zeros(tokens, np.bool_)) for row in ids]
    return open_processor(pack).collate(inputs, [])
