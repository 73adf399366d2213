"""The command line. Each command is a module of `embedpack.cli`; other packages add commands as entry points.

Exit status: 0 success; 1 error, with a one-line message on standard error; 2 wrong usage; 130 interrupted;
129 or 143 stopped by SIGHUP or SIGTERM.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from embedpack.cli.terminal import VisibleFormatter, visible, visible_output
from embedpack.errors import EmbedpackError

BUILT_IN = {name: f"embedpack.cli.{name}" for name in ("embed", "search", "inspect", "verify", "prepare")}
ENTRY_POINTS = "embedpack.commands"
INTERRUPTED = 130
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(BaseException):
    """SIGTERM or SIGHUP was received; like KeyboardInterrupt, it lets everything clean up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


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
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, handlers=[handler])
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        with _stop_signals(), visible_output():
            return run(options)
    except EmbedpackError as error:
        print(f"embedpack: {visible(str(error))}", file=sys.stderr)
        return 1
    except MemoryError:
        print("embedpack: the memory is full; free some, or pass fewer or smaller inputs", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("embedpack: interrupted; no partial file remains", file=sys.stderr)
        return INTERRUPTED
    except Stopped as stopped:
        print(f"embedpack: {signal.Signals(stopped.number).name}; no partial file remains", file=sys.stderr)
        return 128 + stopped.number
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe. Without this, Python would fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM and SIGHUP, once, unless the caller handles or ignores them (nohup)."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)  # a second one must not end the clean-up
        raise Stopped(number)

    main_thread = threading.current_thread() is threading.main_thread()
    handled = [each for each in STOP_SIGNALS if main_thread and signal.getsignal(each) == signal.SIG_DFL]
    for each in handled:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="embedpack",
        description="Embeddings from quantized ONNX packs, without torch.",
        epilog="Exit status: 0 success, 1 error, 2 wrong usage, 130 interrupted, 143 terminated.",
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
