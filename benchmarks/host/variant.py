"""Choice of the variant to measure."""

from __future__ import annotations

import argparse

from embedpack.pack.folder import Pack


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Declare --variant."""
    parser.add_argument(
        "--variant", metavar="V", help="variant to measure; default: the first one with int8, else the first one"
    )


def variant_of(pack: Pack, name: str | None) -> str:
    """Name of the variant: the given one, else the default."""
    variants = pack.manifest.variants
    return name or next((name for name, variant in variants.items() if variant.weights == "int8"), min(variants))
