"""Options of `embedpack serve`: a flag is stronger than an environment variable, a variable than a key of the file."""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedpack.cli.options import ADAPTERS, DEVICES, MAX_THREADS, WEIGHTS
from embedpack.cli.parser import whole_number
from embedpack.errors import InputError, OptionError, failed, unknown

HOST = re.compile(r"[a-zA-Z0-9.-]+(:[0-9]{1,5})?")
PREFIX = "EMBEDPACK_SERVE_"
CONFIG, PACKS = "config", "packs"
LOG_FORMATS = ("text", "json")
MAX_PORT = 65535
MAX_WORKERS = 1024
MAX_FILE_BYTES = 1_000_000

Kind = Literal["number", "text", "switch"]
TYPES: Mapping[Kind, tuple[type, ...]] = {"number": (int, float), "text": (str,), "switch": (bool,)}


def seconds(text: str) -> float:
    """Type of an option: a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def hosts(text: str) -> tuple[str, ...]:
    """Type of an option: names of hosts with commas between them, each with a port or without."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if not HOST.fullmatch(name):
            raise argparse.ArgumentTypeError(f"{name!r} is not the name of a host, such as images.example.org")
    return names


def choice(*values: str) -> Callable[[str], str]:
    """Type of an option: one of some values."""

    def parse(text: str) -> str:
        if text not in values:
            raise argparse.ArgumentTypeError(unknown("value", text, values))
        return text

    return parse


def switch(text: str) -> bool:
    """Type of an environment variable: true or false."""
    return choice("true", "false")(text) == "true"


@dataclass(frozen=True)
class ServeOption:
    """An option with one value, named as in the file; `default` None: see `help`."""

    name: str
    kind: Kind
    parse: Callable[[str], Any]
    default: Any
    metavar: str
    help: str

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return PREFIX + self.name.replace("-", "_").upper()

    @property
    def destination(self) -> str:
        """Name of its attribute among the parsed flags."""
        return self.name.replace("-", "_")

    @property
    def help_with_default(self) -> str:
        """Help text with the default."""
        if self.default is None or self.default == ():
            return self.help
        shown = f"{self.default:g}" if isinstance(self.default, float) else self.default
        return f"{self.help} (default: {shown})"

    def read(self, value: object, where: str) -> Any:
        """Value of a file; OptionError if it has another type or cannot be used."""
        wanted = TYPES[self.kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.kind != "switch"):
            raise OptionError(f"{where} is {value!r}; it must be a {self.kind}")
        return value if self.kind == "switch" else self.read_text(str(value), where)

    def read_text(self, text: str, where: str) -> Any:
        """Value of a variable; OptionError if it cannot be used."""
        try:
            return self.parse(text)
        except argparse.ArgumentTypeError as cause:
            raise OptionError(f"{where}: {cause}") from cause


def _number(name: str, bounds: Callable[[str], Any], default: float | None, help_: str) -> ServeOption:
    return ServeOption(name, "number", bounds, default, "SECONDS" if bounds is seconds else "N", help_)


def _one_of(name: str, values: Sequence[str], default: str | None, help_: str) -> ServeOption:
    return ServeOption(name, "text", choice(*values), default, "{" + ",".join(values) + "}", help_)


SERVER = (
    ServeOption("host", "text", str, "127.0.0.1", "HOST", "address to listen on"),
    _number("port", whole_number(0, MAX_PORT), 8080, "port; 0: a free one"),
    ServeOption("api-keys", "text", Path, None, "FILE", "file of bearer keys, one a line; SIGHUP reads it again"),
    _one_of("weights", WEIGHTS, None, "weights format (default: int8 if the pack has it)"),
    _one_of("adapters", ADAPTERS, None, "adapter mode (default: merged if the pack has it, a graph for each task)"),
    _one_of(
        "device", DEVICES, "cpu", "cpu, cuda (a GPU), or auto: a GPU if there is one and the pack has weights for it"
    ),
    _number("workers", whole_number(1, MAX_WORKERS), 1, "number of processes; prepared graphs are in memory once"),
    _number("threads", whole_number(1, MAX_THREADS), None, "threads of a process (default: its share of the cores)"),
    _number("queue", whole_number(1), 256, "most requests of a process that wait or run; others get status 429"),
    _number("deadline", seconds, 60.0, "time after which a request is given up with status 504"),
    ServeOption(
        "allow-urls", "text", hosts, (), "HOST,...", "fetch images from these hosts (default: nothing is fetched)"
    ),
    ServeOption("access-log", "switch", switch, True, "", "log a line for each request (default: yes)"),
    _one_of("log-format", LOG_FORMATS, "text", "lines of the log; json: one object a line"),
)
LIMITS = (
    _number("max-body", whole_number(1), 32_000_000, "bytes of the body"),
    _number("max-items", whole_number(1), 2048, "inputs"),
    _number("max-tokens", whole_number(1), 300_000, "tokens of all inputs together"),
    _number("receive-timeout", seconds, 30.0, "time that a client may take to send the headers, and the body"),
)
OPTIONS = {option.name: option for option in (*SERVER, *LIMITS)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of all options; those that are not given are None."""
    for group, options in ((parser, SERVER), (parser.add_argument_group("limits of a request"), LIMITS)):
        for option in options:
            if option.kind == "switch":
                action = argparse.BooleanOptionalAction
                group.add_argument(f"--{option.name}", action=action, default=None, help=option.help)
            else:
                group.add_argument(
                    f"--{option.name}", type=option.parse, metavar=option.metavar, help=option.help_with_default
                )


def option_values(flags: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """Values of all options by name, and the list `packs`.

    Raises:
        InputError: the file cannot be read.
        OptionError: an unknown key or variable, or a value that cannot be used.
    """
    variables = _of_environment(environment)
    path = getattr(flags, CONFIG) or variables.pop(CONFIG, None)
    given = {name: getattr(flags, option.destination) for name, option in OPTIONS.items()} | {
        PACKS: flags.packs or None
    }
    return {
        **{name: option.default for name, option in OPTIONS.items()},
        PACKS: [],
        **({} if path is None else _of_file(Path(path))),
        **variables,
        **{name: value for name, value in given.items() if value is not None},
    }


def _of_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {option.variable: option for option in OPTIONS.values()}
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX):
            continue
        if name == PREFIX + CONFIG.upper():
            values[CONFIG] = text
        elif name == PREFIX + PACKS.upper():
            values[PACKS] = text.split(os.pathsep)
        elif name in known:
            values[known[name].name] = known[name].read_text(text, f"environment variable {name}")
        else:
            raise OptionError(unknown("environment variable", name, known))
    return values


def _of_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise InputError(f"{path}: more than {MAX_FILE_BYTES} bytes; --config takes a file of options")
        table = tomllib.loads(content.decode("utf-8"))
    except OSError as cause:
        raise InputError(f"{path}: {failed('read', cause)}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise InputError(f"{path}: not a TOML file: {cause}") from cause
    return {name: _of_key(name, value, path) for name, value in table.items()}


def _of_key(name: str, value: object, path: Path) -> Any:
    if name == PACKS:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise OptionError(f'{path}: packs is {value!r}; it must be a list such as ["minilm=packs/minilm"]')
        return value
    if name not in OPTIONS:
        raise OptionError(f"{path}: {unknown('key', name, [PACKS, *OPTIONS])}")
    return OPTIONS[name].read(value, f"{path}: {name}")
