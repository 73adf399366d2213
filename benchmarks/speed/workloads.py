"""What everyone is measured on: batches of fixed shapes, and texts of mixed lengths; written to files once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.inputs import inputs_of_lengths, mixed_lengths, write_inputs
from embedpack.errors import InputError
from embedpack.pack.folder import Pack

Shape = tuple[int, int]


@dataclass(frozen=True)
class Workload:
    """Inputs in a file, JSON.

    Attributes:
        name: "ROWSxTOKENS" or "mixed".
        path: the file.
        tokens: of all inputs together.
        shape: rows and tokens of the one batch; None: mixed lengths.
    """

    name: str
    path: str
    tokens: int
    shape: Shape | None


def write_workloads(pack: Pack, folder: Path, shapes: Sequence[Shape], *, mixed: bool, seed: int) -> list[Workload]:
    """Make the inputs.

    Raises:
        EmbedpackError: the tokenizer has no words for them, or the model takes no texts as long.
    """
    found = []
    for rows, tokens in shapes:
        if tokens > pack.manifest.text.max_tokens:
            raise InputError(f"{rows}x{tokens}: this model takes at most {pack.manifest.text.max_tokens} tokens")
        found.append(_written(pack, folder, [tokens] * rows, (rows, tokens), seed))
    if mixed:
        found.append(_written(pack, folder, mixed_lengths(seed), None, seed))
    return found


def _written(pack: Pack, folder: Path, lengths: Sequence[int], shape: Shape | None, seed: int) -> Workload:
    name = "mixed" if shape is None else f"{shape[0]}x{shape[1]}"
    path = folder / f"{name}.json"
    write_inputs(path, inputs_of_lengths(pack, lengths, seed))
    return Workload(name, str(path), sum(lengths), shape)


def shape(text: str) -> Shape:
    """ROWSxTOKENS of the command line.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; write rows x tokens, e.g. 32x128")
    return int(found[1]), int(found[2])
