"""Output files of commands: checked before the work; JSON on standard output or in a file."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from embedpack.cli.options import add_overwrite
from embedpack.errors import InputError
from embedpack.storage.atomic import atomic_file, check_new_file
from embedpack.storage.standard_output import write_lines

STANDARD_OUTPUT = Path("-")
JSON_SUFFIX = ".json"


def add_json(
    parser: argparse.ArgumentParser,
    file_type: Callable[[str], Path] | None = None,
    content: str = "machine-readable output, in place of text or in a file",
) -> None:
    """Declare --json and --overwrite; `file_type` checks the name of the file, `content` is the help text."""
    parser.add_argument(
        "--json",
        nargs="?",
        type=file_type or _json_file,
        const=STANDARD_OUTPUT,
        metavar="FILE",
        help=content,
    )
    add_overwrite(parser)


def check_output(output: Path | None, inputs: Iterable[str | Path], *, overwrite: bool) -> None:
    """Refuse an output file that cannot be written, exists, or is an input, before any work.

    All files of a folder among the inputs count.

    Raises:
        InputError, CapacityError: the file cannot be used.
    """
    if output is None or output == STANDARD_OUTPUT:
        return
    if os.path.lexists(output):
        if output.exists() and any(_is_same(output, each) for each in _files(inputs)):
            raise InputError(f"{output}: is one of the inputs; write to another file")
        if not overwrite:
            raise InputError(f"{output}: exists; choose another file, or pass --overwrite")
    check_new_file(output)


def write_json(output: Path, content: bytes) -> None:
    """Write a line of JSON to a file, atomically, or to standard output, in UTF-8 whatever the encoding of texts is."""
    if output == STANDARD_OUTPUT:
        write_lines([content + b"\n"])
        return
    with atomic_file(output) as stream:
        stream.write(content + b"\n")


def _files(inputs: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, inputs):
        yield path
        with contextlib.suppress(OSError):  # a folder that cannot be read has no files that are read
            yield from path.rglob("*") if path.is_dir() else ()


def _is_same(output: Path, other: Path) -> bool:
    try:
        return output.samefile(other)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False


def _json_file(text: str) -> Path:
    # Without a check, the word after --json could be an argument that belongs to the command.
    if text != str(STANDARD_OUTPUT) and not text.endswith(JSON_SUFFIX):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .json; write --json last, or --json FILE.json")
    return Path(text)
