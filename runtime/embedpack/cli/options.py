"""Options of several commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

# As in embedpack.inputs.text_formats, which is slow to import; a test compares them.
FORMATS = ("lines", "jsonl", "json", "csv", "tsv", "parquet")

if TYPE_CHECKING:
    from embedpack.embedder import Embedder
    from embedpack.inputs.text_files import TextOptions


def add_pack(parser: argparse.ArgumentParser) -> None:
    """Declare PACK."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of the pack")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare --json."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Declare --task, --adapters, --weights, --threads."""
    parser.add_argument("--task", help="task, e.g. retrieval; optional for packs with one task")
    parser.add_argument("--adapters", help="merged or switchable (default: merged if the pack has it)")
    parser.add_argument("--weights", help="weights format: fp32, int8 or int4 (default: int8 if the pack has it)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="number of threads (default: the cores available to this process)"
    )


def add_vectors(parser: argparse.ArgumentParser) -> None:
    """Declare --truncate-dim, --precision."""
    parser.add_argument(
        "--truncate-dim", type=int, metavar="D", help="number of leading dimensions to keep (default: all)"
    )
    parser.add_argument(
        "--precision",
        default="float32",
        help="format of the vectors: float32, float16, int8, 4bit, 2bit, ternary or binary (default: %(default)s)",
    )


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Declare --format, --column, --id-column."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="format of text files (default: by their endings, which may be followed by .gz; standard input: lines)",
    )
    parser.add_argument(
        "--column", default="text", metavar="NAME", help="JSON key or column of the text (default: %(default)s)"
    )
    parser.add_argument(
        "--id-column", metavar="NAME", help="JSON key or column of the id (default: id or _id, else the line number)"
    )


def open_embedder(options: argparse.Namespace) -> Embedder:
    """Open the pack with the options of `add_variant`."""
    from embedpack.embedder import Embedder

    return Embedder(
        options.pack, task=options.task, weights=options.weights, adapters=options.adapters, threads=options.threads
    )


def text_options(options: argparse.Namespace) -> TextOptions:
    """Options of `add_texts` for reading files of texts."""
    from embedpack.inputs.text_files import TextOptions

    return TextOptions(options.format, options.column, options.id_column)
