"""Jobs of peers, which run in the peers' environments: those have msgspec and numpy, and no embedpack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.jobs import Job

PeerVectors = npt.NDArray[np.float32]
Rows = Sequence[Sequence[int]]
# Texts of a batch of peers that do not batch by themselves.
FIXED_BATCH = 64


class PeerInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts and their token ids, special ones included."""

    texts: list[str]
    ids: list[list[int]]


class PeerSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that all peers run: folders of the merged checkpoint and of its conversions, file of calibration texts.

    `pooling` is "mean", "cls" or "last".
    """

    checkpoint: str
    models: str
    calibration: str
    pooling: str
    pad_token_id: int


class ConvertJob(Job, frozen=True, kw_only=True):
    """Conversion of the model into a format by the function `convert` of a module of benchmarks.peers."""

    module: str
    format: str
    source: PeerSource


class PeerJob(Job, frozen=True, kw_only=True):
    """Time of a peer: calls with one batch, repeated for some seconds, or one pass over texts of mixed lengths.

    `module` is one of benchmarks.peers with a function `open_model`; `vectors` is a file to write. `budget` is the most
    tokens of a call of the peer with a part of the batch; None: the whole batch in one call.
    """

    module: str
    format: str
    source: PeerSource
    threads: int
    inputs: str
    mixed: bool
    seconds: float
    vectors: str
    budget: int | None


@dataclass(frozen=True)
class PeerModel:
    """A loaded peer; both functions return unit vectors float32 [rows, dimensions] in the order of the inputs.

    Attributes:
        batch: encodes inputs of equal length in one batch.
        corpus: encodes any number of inputs of any length, in the peer's usual batches.
    """

    batch: Callable[[PeerInputs], PeerVectors]
    corpus: Callable[[PeerInputs], PeerVectors]

    @classmethod
    def of_ids(cls, run: Callable[[Rows], PeerVectors]) -> PeerModel:
        """Model that encodes a batch of token ids with `run`; longer inputs FIXED_BATCH rows at a time."""

        def corpus(inputs: PeerInputs) -> PeerVectors:
            starts = range(0, len(inputs.ids), FIXED_BATCH)
            return np.concatenate([run(inputs.ids[start : start + FIXED_BATCH]) for start in starts])

        return cls(lambda inputs: run(inputs.ids), corpus)


def parts_of(inputs: PeerInputs, budget: int | None) -> list[PeerInputs]:
    """Parts of a batch of inputs of equal length with at most `budget` tokens each, but one input at least."""
    size = len(inputs.ids) if budget is None else max(1, budget // len(inputs.ids[0]))
    starts = range(0, len(inputs.ids), size)
    return [PeerInputs(texts=inputs.texts[at : at + size], ids=inputs.ids[at : at + size]) for at in starts]


def read_inputs(path: str) -> PeerInputs:
    """Read a file of inputs."""
    return msgspec.json.decode(Path(path).read_bytes(), type=PeerInputs)
