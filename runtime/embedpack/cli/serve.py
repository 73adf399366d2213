"""embedpack serve: packs over HTTP."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedpack.cli.log import json_lines, log_to_stderr
from embedpack.cli.serve_options import PREFIX, add_options, option_values

if TYPE_CHECKING:
    from embedpack.server.settings import PackSettings, ServeSettings

SUMMARY = "Serve packs over HTTP, in the forms of Jina's and OpenAI's embeddings and Jina's rerank."
EXAMPLES = f"""\
  embedpack serve packs/minilm
  embedpack serve minilm=packs/minilm v4=packs/v4 --port 8080
  embedpack serve packs/minilm --host 0.0.0.0 --api-keys keys.txt
  embedpack serve --config server.toml

a file of options, all of which are optional; keys are the names of the flags:
  packs = ["minilm=packs/minilm"]
  port = 8080
  queue = 64
  deadline = 30
  access-log = false

An option's environment variable is {PREFIX}QUEUE for --queue, and so on; {PREFIX}PACKS has
the packs with {os.pathsep!r} between them. A flag replaces a variable, a variable a key of the file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "packs", nargs="*", metavar="[NAME=]PACK", help="folder of a pack, and its name (default: that of the folder)"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of options, see the example below")
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from embedpack.extras import check_extras

    check_extras("server")
    from embedpack.server.run import serve

    values = option_values(options, os.environ)
    form = values["log-format"]
    with json_lines(enabled=form == "json"):
        return serve(
            _settings(values),
            partial(log_to_stderr, verbose=options.verbose, quiet=options.quiet, json=form == "json"),
        )


def _settings(values: Mapping[str, Any]) -> ServeSettings:
    from embedpack.errors import OptionError
    from embedpack.server.settings import Limits, ServeSettings

    if not values["packs"]:
        raise OptionError("no pack is named; pass its folder, or packs in the file of --config")
    return ServeSettings(
        packs=tuple(_pack(value, values) for value in values["packs"]),
        host=values["host"],
        port=values["port"],
        api_keys=values["api-keys"],
        workers=values["workers"],
        queue=values["queue"],
        deadline=values["deadline"],
        threads=values["threads"],
        allow_urls=values["allow-urls"],
        access_log=values["access-log"],
        limits=Limits(
            body_bytes=values["max-body"],
            receive_seconds=values["receive-timeout"],
            items=values["max-items"],
            tokens=values["max-tokens"],
        ),
    )


def _pack(value: str, values: Mapping[str, Any]) -> PackSettings:
    """`name=folder`, or a folder, whose last part is the name; a folder with "=" in its path has to be named."""
    from embedpack.errors import OptionError
    from embedpack.server.settings import PackSettings

    name, equals, folder = value.partition("=")
    path = Path(folder if equals else value)
    name = name if equals else path.resolve().name
    if not name or (equals and not folder):
        raise OptionError(f"{value!r} has no name or no folder; pass NAME=FOLDER")
    return PackSettings(
        name=name, folder=path, weights=values["weights"], adapters=values["adapters"], device=values["device"]
    )
