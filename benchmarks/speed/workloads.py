"""Workloads: batches of fixed shapes and texts of mixed lengths, written to files for the workers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.speed.inputs import inputs_of_lengths, mixed_lengths
from embedpack.errors import InputError
from embedpack.pack.folder import Pack

Shape = tuple[int, int]


@dataclass(frozen=True)
class Workload:
    """Inputs of a measurement in a JSON file, and the number of all tokens; `shape` is None for mixed lengths."""

    name: str
    path: str
    tokens: int
    shape: Shape | None


def write_workloads(pack: Pack, folder: Path, shapes: Sequence[Shape], *, mixed: bool, seed: int) -> list[Workload]:
    """Draw the inputs and write them.

    Raises:
        EmbedpackError: the tokenizer has no suitable words, or a shape exceeds the model's tokens.
    """
    workloads = []
    for rows, tokens in shapes:
        if tokens > pack.manifest.text.max_tokens:
            raise InputError(f"{rows}x{tokens}: this model takes at most {pack.manifest.text.max_tokens} tokens")
        workloads.append(_written(pack, folder, [tokens] * rows, (rows, tokens), seed))
    if mixed:
        workloads.append(_written(pack, folder, mixed_lengths(seed), None, seed))
    return workloads


def _written(pack: Pack, folder: Path, lengths: Sequence[int], shape: Shape | None, seed: int) -> Workload:
    name = "mixed" if shape is None else f"{shape[0]}x{shape[1]}"
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.encode(inputs_of_lengths(pack, lengths, seed)))
    return Workload(name, str(path), sum(lengths), shape)


def shape(text: str) -> Shape:
    """Parse ROWSxTOKENS of the command line.

    Raises:
        argparse.ArgumentTypeError: the text is no shape.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; write rows x tokens, e.g. 32x128")
    return int(match[1]), int(match[2])
