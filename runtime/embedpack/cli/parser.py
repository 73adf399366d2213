"""Parser of the command line: suggestions for typing errors, usage of the command, options that are given once."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from embedpack.errors import unknown

# Attribute of the parsed options: the options that were given.
GIVEN = "given"


class StoreOnce(argparse.Action):
    """The action "store", which refuses a second value for one option."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store a value; ArgumentError if there is one."""
        given = namespace.__dict__.setdefault(GIVEN, set())
        if option_string is not None and self.dest in given:
            raise argparse.ArgumentError(self, "given twice; it takes one value")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests what was meant; exit status 2 for wrong usage, with the command's usage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # those of ArgumentParser
        super().__init__(*arguments, **options)
        self._inner = False
        for name in (None, "store"):
            self.register("action", name, StoreOnce)

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse a command line; the usage of errors is that of the command."""
        options, rest = self.parse_known_args(arguments)
        if rest:
            command: Parser = getattr(options, "parser", self)
            command.refuse(rest)
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments as ArgumentParser does, but files may stand on both sides of an option."""
        commands = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        if commands or self._inner:
            return super().parse_known_args(args, namespace)
        self._inner = True  # the method of the library calls this one
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inner = False

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """End with an error for arguments that the parser does not know."""
        known = [name for action in self._actions for name in action.option_strings]
        name = rest[0].split("=")[0]
        near = difflib.get_close_matches(name, known, n=1) if name.startswith("-") else []
        hint = f"; did you mean {near[0]}?" if near else ""
        self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if isinstance(action, argparse._SubParsersAction) else "value"
            raise argparse.ArgumentError(
                None if what == "command" else action, unknown(what, value, list(action.choices))
            )


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Type of an option: a whole number of at least `least` and, if given, at most `most`."""
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return number

    return parse
