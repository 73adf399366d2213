"""Regular expressions of an adapter_config.json, tried in a process with a time limit before they are used.

Some expressions practically never end on names of modules, and `re` cannot be stopped. PEFT, the reference, matches
the same expressions; a restricted syntax would refuse adapters that work.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from embedpack.errors import CheckpointError

MAX_SECONDS = 5
# Seconds on the clock, for a busy machine and for systems that cannot limit the processor's time.
MAX_WAIT_SECONDS = 120
MAX_CHARACTERS = 2_000
FIELDS = ("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_pattern", "modules_to_save")
# Without these, a match takes linear time.
COSTLY = re.compile(r"[*+?{|(]")
PROGRAM = f"""
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, ({MAX_SECONDS}, {MAX_SECONDS}))
except ImportError:
    pass
expressions, names = json.load(sys.stdin)
for number, expression in enumerate(expressions):
    print(number, flush=True)
    for name in names:
        try:
            re.match(expression, name)
        except re.error:
            break
"""


def ends_with(expression: str) -> str:
    """Expression for names of modules that end with a match, as in PEFT (utils/other.py, get_pattern_key)."""
    return rf"(.*\.)?({expression})$"


def whole(expression: str) -> str:
    """Expression for names of modules that are a match, as re.fullmatch finds them."""
    return rf"(?:{expression})\Z"


def within(expression: str) -> str:
    """Expression for names of modules in a module whose name ends with a match, as in PEFT (modules_to_save)."""
    return rf"(^|.*\.){expression}($|\..*)"


def layer_of(expression: str) -> str:
    """Expression for names of modules in a numbered layer of a list, as in PEFT (layers_pattern)."""
    return rf"(?:^|.*?\.){expression}\.(?P<index>\d+)\."


FORMS = (ends_with, whole, within, layer_of)


def check_patterns(path: Path, config: Mapping[str, Any], modules: Iterable[str]) -> None:
    """Try all regular expressions of an adapter_config.json on names of modules.

    Raises:
        CheckpointError: one is too long, or takes more than MAX_SECONDS.
    """
    expressions = sorted({each for each in _expressions(config) if COSTLY.search(each)})
    for expression in expressions:
        if len(expression) > MAX_CHARACTERS:
            raise CheckpointError(
                f"{path}: an expression of {len(expression)} characters ({expression[:40]}...), at most "
                f"{MAX_CHARACTERS} are matched; list the modules instead"
            )
    if not expressions:
        return
    content = json.dumps([[form(each) for each in expressions for form in FORMS], sorted(set(modules))])
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    try:
        done = subprocess.run(
            command, input=content.encode(), capture_output=True, check=False, timeout=MAX_WAIT_SECONDS
        )
        failed, output = done.returncode != 0, done.stdout
    except subprocess.TimeoutExpired as cause:
        failed, output = True, cause.stdout or b"0"
    if failed:
        last = expressions[int((output.split() or [b"0"])[-1]) // len(FORMS)]
        raise CheckpointError(
            f"{path}: the regular expression {last!r} takes more than {MAX_SECONDS} seconds on the names of "
            f"{len(set(modules))} modules; list the modules instead"
        )


def _expressions(config: Mapping[str, Any]) -> Iterator[str]:
    for field in FIELDS:
        value = config.get(field)
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            yield from (each for each in value if isinstance(each, str))
