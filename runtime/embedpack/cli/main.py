"""The command line. Each command is a module of `embedpack.cli`; other packages add commands as entry points.

Exit status: 0 success; 1 error, with a one-line message on standard error; 2 wrong usage or option; 130 interrupted;
129 or 143 stopped by SIGHUP or SIGTERM.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from embedpack.cli.log import log_to_stderr
from embedpack.cli.options import add_log
from embedpack.cli.parser import Parser
from embedpack.cli.terminal import visible, visible_output
from embedpack.errors import EmbedpackError, InputError, OptionError, failed

ORDER = ("export", "embed", "search", "rerank", "serve", "inspect", "verify", "prepare", "bench", "demo")
EXAMPLES = """\
  embedpack demo --keep packs/minilm
  embedpack search packs/minilm notes.txt "where did I park"
  embedpack embed packs/minilm docs.jsonl -o docs.npz"""
EXIT_STATUS = "Exit status: 0 success, 1 error, 2 wrong usage, 130 interrupted, 143 terminated."
BUILT_IN = {
    name: f"embedpack.cli.{name}" for name in ("embed", "search", "rerank", "serve", "inspect", "verify", "prepare")
}
ENTRY_POINTS = "embedpack.commands"
# Arguments of `Embedder`, alone or with a value; task and adapters are words of sentences, too.
PYTHON_NAME = re.compile(
    r"(?<![\w/.])(?P<name>on_long|on_empty|prompt_name|truncate_dim|max_pixels|pool_factor|top_n|(?:task|adapters)(?==))"
    r"(?:=(?:'(?P<value>[^']*)')?)?(?!\w)"
)
FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class TerminationSignal(BaseException):
    """Raised on SIGTERM and SIGHUP; a BaseException, as KeyboardInterrupt is, so that cleanup code runs."""

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
    try:
        with _stop_signals(), visible_output():
            options = _parser().parse(arguments)
            run: Callable[[argparse.Namespace], int] = options.run
            with log_to_stderr(verbose=options.verbose, quiet=options.quiet):
                status = run(options)
            if sys.stdout is not None:
                sys.stdout.flush()  # an error at exit could not be reported
            return status
    except InputError as error:
        _print_error(_with_option_names(str(error)))
        return WRONG_USAGE if isinstance(error, OptionError) else FAILED
    except EmbedpackError as error:
        _print_error(str(error))
        return FAILED
    except MemoryError:
        _print_error("the memory is full; free some, or pass fewer or smaller inputs")
        return FAILED
    except KeyboardInterrupt:
        _print_error("interrupted; no partial file remains")
        return INTERRUPTED
    except TerminationSignal as stopped:
        _print_error(f"{signal.Signals(stopped.number).name}; no partial file remains")
        return 128 + stopped.number
    except BrokenPipeError:
        _discard_output()  # the reader (head, less) has closed the pipe
        return 0
    except OSError as error:
        # Errors of files are EmbedpackErrors, so this is one of standard output.
        _discard_output()
        _print_error(f"standard output: {failed('written', error)}")
        return FAILED


def _discard_output() -> None:
    """Discard what standard output still holds: Python would fail again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(message: str) -> None:
    print(f"embedpack: {visible(message)}", file=sys.stderr)


def _with_option_names(message: str) -> str:
    """Message of the Python interface with the names of the command line: on_long='error' is --on-long error."""

    def option(match: re.Match[str]) -> str:
        value = "" if match["value"] is None else f" {match['value']}"
        return f"--{match['name'].replace('_', '-')}{value}"

    return PYTHON_NAME.sub(option, message)


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Raise `TerminationSignal` on SIGTERM and SIGHUP, once, unless the caller handles or ignores them (nohup)."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)  # a second one must not end the clean-up
        raise TerminationSignal(number)

    main_thread = threading.current_thread() is threading.main_thread()
    handled = [each for each in STOP_SIGNALS if main_thread and signal.getsignal(each) == signal.SIG_DFL]
    for each in handled:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)


def _parser() -> Parser:
    parser = Parser(
        prog="embedpack",
        description="Embeddings from quantized ONNX packs, without torch.",
        epilog=f"examples:\n{EXAMPLES}\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"embedpack {importlib.metadata.version('embedpack')}")
    add_log(parser, default=False)
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
        add_log(sub)
        sub.set_defaults(run=command.run, parser=sub)
    return parser


def _commands() -> dict[str, str]:
    """Names and modules of all commands, in the order of their use."""
    added = {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    modules = {**added, **BUILT_IN}
    names = [*(name for name in ORDER if name in modules), *sorted(modules.keys() - set(ORDER))]
    return {name: modules[name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
