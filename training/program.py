"""Parsers of the command lines. Needs nothing but Python."""

from __future__ import annotations

import argparse
from pathlib import Path


def program(module: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """Parser of `python -m training.MODULE`."""
    return argparse.ArgumentParser(
        prog=f"python -m training.{module}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_training_sets(parser: argparse.ArgumentParser) -> None:
    """Declare --data."""
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN_DIR", help="folder of the training sets")


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Declare the folder of the backbone."""
    parser.add_argument("backbone", type=Path, metavar="BACKBONE_DIR", help="folder of all-MiniLM-L6-v2")
