"""Arguments that several programs share."""

from __future__ import annotations

import argparse
from pathlib import Path

from embedpack.pack.folder import Pack


def program(module: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """Parser of `python -m MODULE`."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_pack(parser: argparse.ArgumentParser) -> None:
    """Declare the folder of the pack."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of the pack")


def add_number(parser: argparse.ArgumentParser, name: str, default: float, text: str, metavar: str = "N") -> None:
    """Declare an option of the default's type, whose help ends with the default."""
    text += "; default: %(default)s"
    parser.add_argument(name, type=type(default), default=default, metavar=metavar, help=text)


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Declare --variant."""
    parser.add_argument(
        "--variant", metavar="V", help="variant to measure; default: the first one with int8, else the first one"
    )


def variant_of(pack: Pack, name: str | None) -> str:
    """Name of the variant: the given one, else the default."""
    variants = pack.manifest.variants
    return name or next((name for name, variant in variants.items() if variant.weights == "int8"), min(variants))
