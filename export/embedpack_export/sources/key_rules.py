"""Rules of the keys of a JSON file: each key is followed, has no effect on vectors, or is refused by name."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError

MAX_SHOWN = 80


@dataclass(frozen=True)
class Followed:
    """A key that decides vectors; its reader checks the value."""

    note: str  # what it decides


@dataclass(frozen=True)
class NoEffect:
    """A key that no vector depends on."""

    reason: str


@dataclass(frozen=True)
class Only:
    """A key with few supported values."""

    values: tuple[object, ...]
    remedy: str  # what to do about another value


@dataclass(frozen=True)
class Checked:
    """A key whose value is accepted or refused by a function."""

    note: str  # accepted values
    problem: Callable[[Any], str | None]  # reason to refuse a value, and the remedy; None: accepted


Rule = Followed | NoEffect | Only | Checked


@dataclass(frozen=True)
class KeyTable:
    """Rules of a file by key; a key may be a pattern, such as `*_token`."""

    file: str  # name of the file, and of the object in it
    rules: Mapping[str, Rule]

    def rule(self, key: str) -> Rule | None:
        """Rule of a key; None: the key is unknown."""
        patterns = (name for name in self.rules if "*" in name and fnmatch.fnmatchcase(key, name))
        return self.rules.get(key) or next((self.rules[name] for name in patterns), None)


def no_effect(reason: str, keys: Iterable[str]) -> dict[str, Rule]:
    """Rules of keys that have no effect for the same reason."""
    return {key: NoEffect(reason) for key in keys}


def check_keys(path: Path, content: Mapping[str, Any], table: KeyTable, within: str = "") -> None:
    """Check the keys and values of an object in a file; `within` is the name of an object inside of the file.

    Raises:
        CheckpointError: a key is unknown, or its value is not supported; the message names both and a remedy.
    """
    for key, value in content.items():
        name = f"{within}.{key}" if within else key
        rule = table.rule(key)
        if rule is None:
            similar = difflib.get_close_matches(key, table.rules, 1)
            meant = f"did you mean {similar[0]!r}? " if similar else ""
            raise CheckpointError(
                f"{path}: unknown key {name!r} with the value {shown(value)}; {meant}"
                "Remove it if vectors cannot depend on it, else report it"
            )
        problem = _problem(rule, value)
        if problem is not None:
            raise CheckpointError(f"{path}: {name} is {shown(value)}; {problem}")


def shown(value: object) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _problem(rule: Rule, value: object) -> str | None:
    if isinstance(rule, Checked):
        return rule.problem(value)
    if isinstance(rule, Only) and not any(_equal(value, known) for known in rule.values):
        return f"supported: {', '.join(map(json_value, rule.values))}; {rule.remedy}"
    return None


def _equal(value: object, known: object) -> bool:
    """Equality of JSON values: True is not 1."""
    return value == known and isinstance(value, bool) == isinstance(known, bool)


def json_value(value: object) -> str:
    """A supported value as JSON spells it."""
    names: Mapping[object, str] = {None: "null", True: "true", False: "false"}
    return names[value] if value is None or isinstance(value, bool) else str(value)
