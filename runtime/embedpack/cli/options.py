"""Options of several commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.parser import whole_number

# As in the modules that define them, which are slow to import; a test compares them.
FORMATS = ("lines", "jsonl", "json", "csv", "tsv", "parquet")
PRECISIONS = ("float32", "float16", "int8", "4bit", "2bit", "ternary", "binary")
WEIGHTS = ("fp32", "fp16", "int8", "int4")
ADAPTERS = ("merged", "switchable")
DEVICES = ("cpu", "cuda", "auto")
MAX_THREADS = 1024

if TYPE_CHECKING:
    from embedpack.embedder import Embedder
    from embedpack.inputs.text_files import TextFileOptions
    from embedpack.pack.manifest import Manifest


def add_log(parser: argparse.ArgumentParser, default: object = argparse.SUPPRESS) -> None:
    """Declare --verbose and --quiet, which may stand before and after the command."""
    level = parser.add_mutually_exclusive_group()
    level.add_argument("-v", "--verbose", action="store_true", default=default, help="verbose logging")
    level.add_argument("--quiet", action="store_true", default=default, help="no progress and no log, errors only")


def add_pack(parser: argparse.ArgumentParser) -> None:
    """Declare PACK."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of the pack")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Declare --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Declare --threads."""
    parser.add_argument(
        "--threads",
        type=whole_number(1, MAX_THREADS),
        metavar="N",
        help="number of threads (default: the cores available to this process)",
    )


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Declare --task, --adapters, --weights, --variant, --threads, --device."""
    parser.add_argument("--task", help="task, e.g. retrieval; optional for packs with one task")
    parser.add_argument("--adapters", choices=ADAPTERS, help="adapter mode (default: merged if the pack has it)")
    parser.add_argument("--weights", choices=WEIGHTS, help="weights format (default: int8 if the pack has it)")
    parser.add_argument(
        "--variant", metavar="V", help="name of the variant, in place of --task, --adapters and --weights"
    )
    add_threads(parser)
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="cpu",
        help="auto: a GPU if there is one and the pack has weights for it (default: %(default)s)",
    )


def add_variants(parser: argparse.ArgumentParser) -> None:
    """Declare --variant and --weights of commands that work on several variants."""
    parser.add_argument(
        "--variant", action="append", default=[], metavar="V", help="name of a variant; may be repeated (default: all)"
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        choices=WEIGHTS,
        help="only variants with these weights; may be repeated (default: all)",
    )


def chosen_variants(manifest: Manifest, options: argparse.Namespace) -> list[str]:
    """Names of the variants that the options of `add_variants` describe; OptionError if there is none."""
    from embedpack.errors import OptionError, unknown

    for name in options.variant:
        if name not in manifest.variants:
            raise OptionError(unknown("variant", name, manifest.variants))
    chosen = [
        name
        for name, variant in manifest.variants.items()
        if name in (options.variant or manifest.variants) and variant.weights in (options.weights or WEIGHTS)
    ]
    if not chosen:
        raise OptionError(
            f"no variant has --weights {' or '.join(options.weights)}; the pack has: {', '.join(manifest.variants)}"
        )
    return chosen


def add_vectors(parser: argparse.ArgumentParser) -> None:
    """Declare --truncate-dim, --precision."""
    parser.add_argument(
        "--truncate-dim", type=whole_number(1), metavar="D", help="number of leading dimensions to keep (default: all)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="format of the vectors (default: %(default)s)"
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
        options.pack,
        task=options.task,
        weights=options.weights,
        adapters=options.adapters,
        variant=options.variant,
        threads=options.threads,
        device=options.device,
    )


def text_file_options(options: argparse.Namespace) -> TextFileOptions:
    """Options of `add_texts` for reading files of texts."""
    from embedpack.inputs.text_files import TextFileOptions

    return TextFileOptions(options.format, options.column, options.id_column)
