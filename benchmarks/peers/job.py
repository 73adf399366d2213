"""Jobs of peers, which run in the peers' environments: those have msgspec and numpy, and no embedpack."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.jobs import Job

Vectors = npt.NDArray[np.float32]


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts and their token ids, special ones included."""

    texts: list[str]
    ids: list[list[int]]


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that all peers run.

    Attributes:
        checkpoint: folder of the merged checkpoint.
        models: folder of the models that peers convert it to.
        calibration: file of calibration inputs.
        pooling: "mean", "cls" or "last".
        pad_token_id: id of the padding token.
    """

    checkpoint: str
    models: str
    calibration: str
    pooling: str
    pad_token_id: int


class ConvertJob(Job, frozen=True, kw_only=True):
    """Conversion of the model into a peer's format.

    Attributes:
        module: module of benchmarks.peers with a function `convert`.
        format: format, one that the module has.
        source: the model.
    """

    module: str
    format: str
    source: Source


class PeerJob(Job, frozen=True, kw_only=True):
    """Time of a peer: repeated calls with one batch, or one pass over texts of mixed lengths.

    Attributes:
        module: module of benchmarks.peers with a function `open_model`.
        format: format, one that the module has.
        source: the model.
        threads: number of threads of a call.
        inputs: file of the inputs.
        mixed: whether the inputs have mixed lengths.
        seconds: time of repeated calls.
        vectors: file to write the vectors to.
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
        """Vectors of any number of inputs of any length in their order, in the peer's usual batches."""


def read_inputs(path: str) -> Inputs:
    """Read a file of inputs."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Inputs)
