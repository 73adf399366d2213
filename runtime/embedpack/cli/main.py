"""The command line. Each command is a module of `embedpack.cli`; other packages add commands as entry points.

Exit status: 0 success; 1 error, with a one-line message on standard error; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from embedpack.errors import EmbedpackError

BUILT_IN = {name: f"embedpack.cli.{name}" for name in ("embed", "search", "inspect", "verify", "prepare")}
ENTRY_POINTS = "embedpack.commands"
INTERRUPTED = 130


class Command(Protocol):
    """Contents of a command's module."""

    SUMMARY: str
    EXAMPLES: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, format="%(message)s")
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except EmbedpackError as error:
        print(f"embedpack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("embedpack: interrupted; no partial file remains", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe. Without this, Python would fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="embedpack",
        description="Embeddings from quantized ONNX packs, without torch.",
        epilog="Exit status: 0 success, 1 error, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"embedpack {importlib.metadata.version('embedpack')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in _commands().items():
        command: Command = importlib.import_module(module)
        sub = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=f"examples:\n{command.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.add_argument("-v", "--verbose", action="store_true", help="log more on standard error")
        sub.set_defaults(run=command.run)
    return parser


def _commands() -> dict[str, str]:
    """Names and modules of all commands, in the order of their use: export, embed, search, ..."""
    added = {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return {**added, **BUILT_IN}


if __name__ == "__main__":
    sys.exit(main())
