"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_pack(parser: argparse.ArgumentParser) -> None:
    """PACK."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of the pack")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def add_variant(parser: argparse.ArgumentParser) -> None:
    """--task, --adapters, --weights, --threads."""
    parser.add_argument("--task", help="task of the pack; may be left out where it has one")
    parser.add_argument("--adapters", help="merged or switchable (default: merged where the pack has it)")
    parser.add_argument("--weights", help="fp32, int8 or int4 (default: int8 where the pack has it)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: the cores this process may use)")


def add_vectors(parser: argparse.ArgumentParser) -> None:
    """--truncate-dim, --precision."""
    parser.add_argument("--truncate-dim", type=int, metavar="D", help="dimensions to keep (default: all)")
    parser.add_argument(
        "--precision",
        default="float32",
        help="float32, float16, int8, 4bit, 2bit, ternary or binary (default: %(default)s)",
    )


def add_texts(parser: argparse.ArgumentParser) -> None:
    """--format, --column, --id-column."""
    parser.add_argument("--format", help="lines, jsonl or csv (default: by the file's ending, else lines)")
    parser.add_argument("--column", default="text", help="JSON key or CSV column of the text (default: %(default)s)")
    parser.add_argument("--id-column", default="id", help="that of the id (default: %(default)s)")
