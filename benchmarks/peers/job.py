"""What a peer's process is asked to do; read in the peer's environment, which has msgspec and not embedpack."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts and their token ids, special ones included."""

    texts: list[str]
    ids: list[list[int]]


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that all peers run.

    Attributes:
        checkpoint: folder of the merged checkpoint.
        models: folder for what peers make of it.
        calibration: file of inputs to calibrate with.
        pooling: "mean", "cls" or "last".
        pad_token_id: fills up a batch.
    """

    checkpoint: str
    models: str
    calibration: str
    pooling: str
    pad_token_id: int


class PrepareJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Convert the model into a peer's format."""

    module: str
    format: str
    source: Source


class PeerJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Measure a peer: repeated calls with one batch for `seconds`, or one pass over texts of mixed lengths.

    `vectors` is the file for the vectors, `inputs` that of the inputs.
    """

    module: str
    format: str
    source: Source
    threads: int
    inputs: str
    mixed: bool
    seconds: float
    vectors: str


class Model(Protocol):
    """A loaded peer."""

    def batch(self, inputs: Inputs) -> Vectors:
        """Vectors float32 [rows, dimensions] of unit length; all inputs in one batch, of equal length."""

    def corpus(self, inputs: Inputs) -> Vectors:
        """Vectors of any number of inputs of any length in their order, batched as the peer's users would."""


def read_inputs(path: str) -> Inputs:
    """Read a file of inputs."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Inputs)
