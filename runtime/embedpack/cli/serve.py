"""embedpack serve: packs over HTTP."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.options import ADAPTERS, WEIGHTS, add_threads
from embedpack.cli.parser import whole_number

if TYPE_CHECKING:
    from embedpack.server.settings import PackSettings

SUMMARY = "Serve packs over HTTP, in the forms of Jina's and OpenAI's embeddings endpoints."
EXAMPLES = """\
  embedpack serve packs/minilm
  embedpack serve minilm=packs/minilm v4=packs/v4 --port 8080
  embedpack serve packs/minilm --host 0.0.0.0 --api-keys keys.txt"""
PORTS = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "packs", nargs="+", metavar="[NAME=]PACK", help="folder of a pack, and its name (default: that of the folder)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=whole_number(0), default=8080, metavar="N", help="port; 0: a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--api-keys", type=Path, metavar="FILE", help="file of bearer keys, one a line; SIGHUP reads it again"
    )
    parser.add_argument("--weights", choices=WEIGHTS, help="weights format (default: int8 if the pack has it)")
    parser.add_argument(
        "--adapters", choices=ADAPTERS, help="adapter mode (default: merged if the pack has it, a graph for each task)"
    )
    add_threads(parser)
    parser.add_argument(
        "--queue",
        type=whole_number(1),
        default=256,
        metavar="N",
        help="maximum number of requests that wait or run; further ones get status 429 (default: %(default)s)",
    )
    parser.add_argument(
        "--deadline",
        type=whole_number(1),
        default=60,
        metavar="SECONDS",
        help="time after which a request is given up (default: %(default)s)",
    )
    parser.add_argument("--no-access-log", action="store_true", help="log no line for each request")
    _add_limits(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits of a request")
    limits.add_argument(
        "--max-body", type=whole_number(1), default=32_000_000, metavar="BYTES", help="size (default: %(default)s)"
    )
    limits.add_argument(
        "--max-items", type=whole_number(1), default=2048, metavar="N", help="inputs (default: %(default)s)"
    )
    limits.add_argument(
        "--max-tokens",
        type=whole_number(1),
        default=300_000,
        metavar="N",
        help="tokens of all inputs together (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from embedpack.extras import check_extras

    check_extras("server")
    from embedpack.errors import OptionError
    from embedpack.server.run import serve
    from embedpack.server.settings import Limits, ServeSettings

    if options.port > PORTS:
        raise OptionError(f"--port is {options.port}; at most {PORTS}")
    limits = Limits(body_bytes=options.max_body, items=options.max_items, tokens=options.max_tokens)
    return serve(
        ServeSettings(
            packs=tuple(_pack(value, options) for value in options.packs),
            host=options.host,
            port=options.port,
            api_keys=options.api_keys,
            queue=options.queue,
            deadline=options.deadline,
            threads=options.threads,
            access_log=not options.no_access_log,
            limits=limits,
        )
    )


def _pack(value: str, options: argparse.Namespace) -> PackSettings:
    """`name=folder`, or a folder, whose last part is the name; a folder with "=" in its path has to be named."""
    from embedpack.errors import OptionError
    from embedpack.server.settings import PackSettings

    name, equals, folder = value.partition("=")
    path = Path(folder if equals else value)
    name = name if equals else path.resolve().name
    if not name or (equals and not folder):
        raise OptionError(f"{value!r} has no name or no folder; pass NAME=FOLDER")
    return PackSettings(name=name, folder=path, weights=options.weights, adapters=options.adapters)
