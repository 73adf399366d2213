"""Arguments of `embedpack embed`."""

from __future__ import annotations

import argparse
from pathlib import Path

from embedpack.cli.options import add_pack, add_texts, add_variant, add_vectors
from embedpack.cli.output import add_json
from embedpack.cli.parser import whole_number

ON_LONG = ("truncate", "error")
ON_EMPTY = ("error", "skip", "zero")
ON_ERROR = ("stop", "skip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument(
        "files",
        nargs="*",
        default=["-"],
        metavar="FILE",
        help="text files (.txt .md .jsonl .json .csv .tsv .parquet, also .gz), images (.png .jpg .jpeg .webp .gif .bmp "
        ".tif .tiff .ppm), PDF; - is standard input (default)",
    )
    add_variant(parser)
    parser.add_argument(
        "--prompt-name",
        help="prompt of the texts, e.g. query; '' is none (default: that of documents: document, passage or corpus)",
    )
    add_vectors(parser)
    _add_images(parser)
    _add_chunks(parser)
    add_texts(parser)
    _add_policies(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="output file: .npz, .safetensors or .jsonl (default: -, JSON lines on standard output)",
    )
    _add_shards(parser)
    add_json(parser, content="summary as JSON, with ids of truncated texts, on standard output or in a file")


def _add_images(parser: argparse.ArgumentParser) -> None:
    """Declare --multi, --pool-factor, --max-pixels."""
    parser.add_argument(
        "--multi", action="store_true", help="multi-vectors: one vector per token, if the pack has them"
    )
    parser.add_argument(
        "--pool-factor",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="with --multi: merge similar token vectors of documents, keeping about 1 in N (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=whole_number(1),
        metavar="N",
        help="resize larger images to this area in pixels (default: the model's limit)",
    )


def _add_chunks(parser: argparse.ArgumentParser) -> None:
    """Declare --late-chunking, --chunk-tokens, --chunk-overlap."""
    parser.add_argument(
        "--late-chunking",
        action="store_true",
        help="one vector for each sentence of a text, in the context of the whole text, under the id ID#BEGIN-END "
        "(places in characters); texts may have any length",
    )
    parser.add_argument(
        "--chunk-tokens",
        type=whole_number(1),
        metavar="N",
        help="with --late-chunking: chunks of N tokens, not sentences",
    )
    parser.add_argument(
        "--chunk-overlap",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="with --chunk-tokens: tokens that a chunk shares with the one before (default: %(default)s)",
    )


def _add_policies(parser: argparse.ArgumentParser) -> None:
    """Declare --on-long, --on-empty, --on-error."""
    parser.add_argument(
        "--on-long", choices=ON_LONG, default="truncate", help="texts over the token limit (default: %(default)s)"
    )
    parser.add_argument(
        "--on-empty",
        choices=ON_EMPTY,
        default="error",
        help="records whose text is empty or has no token: stop, leave them out, or write zeros (default: %(default)s)",
    )
    parser.add_argument(
        "--on-error",
        choices=ON_ERROR,
        default="stop",
        help="inputs that cannot be used: stop, or report them and go on (default: %(default)s)",
    )


def _add_shards(parser: argparse.ArgumentParser) -> None:
    """Declare --shard-size, --resume."""
    parser.add_argument(
        "--shard-size",
        type=whole_number(1),
        metavar="N",
        help="a file for every N inputs: OUT-00000.npz, OUT-00001.npz, ...; OUT.shards.jsonl has those that are done",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="with --shard-size: go on with a run that was interrupted, or begin one",
    )
