"""Random changes of bytes, JSON values and safetensors files."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

# Numbers of changes of an input: with many, most inputs are refused at the first check.
CHANGES = (1, 1, 1, 1, 2, 3)
NUMBERS = (
    0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64,
)  # fmt: skip
FLOATS = (0.5, -0.5, 1e-9, 1e-300, 1e300, 3.5e38, 1e999, float("nan"))
STRINGS = (
    "", " ", ".", "..", "../x", "/etc/passwd", "a/b", "\0", "\n", "\x1b[2J", "é", "\ud800", "\U0001f408", "(a+)+$", "[",
    "x" * 300, "%s", "{}", "None", "nan",
)  # fmt: skip
# Stands for lists within lists, which `json.dumps` cannot write.
NESTED = "nested lists"
MAX_DEPTH = 100_000


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change some bytes of a file."""
    data = bytearray(content)
    for _ in range(rng.choice(CHANGES)):
        change = rng.choice(BYTE_CHANGES)
        change(data, rng.randrange(len(data) + 1), rng)
    return bytes(data)


def _flip(data: bytearray, place: int, rng: random.Random) -> None:
    if place < len(data):
        data[place] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, place: int, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = (rng.choice(NUMBERS) % 256**size).to_bytes(size, rng.choice(("little", "big")))
    data[place : place + size] = value[: max(0, len(data) - place)]


def _insert(data: bytearray, place: int, rng: random.Random) -> None:
    data[place:place] = rng.randbytes(rng.choice((1, 2, 16, 300)))


def _delete(data: bytearray, place: int, rng: random.Random) -> None:
    del data[place : place + rng.choice((1, 2, 16, 300))]


def _cut(data: bytearray, place: int, rng: random.Random) -> None:
    del data[place:]


def _copy(data: bytearray, place: int, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    part = data[start : start + rng.choice((1, 4, 64, 1000))]
    data[place : place + rng.choice((0, len(part)))] = part


BYTE_CHANGES: tuple[Callable[[bytearray, int, random.Random], None], ...] = (
    _flip, _flip, _overwrite, _overwrite, _insert, _delete, _cut, _copy,
)  # fmt: skip


def mutate_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with some of its parts changed."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice(CHANGES)):
        places = list(_places(changed))
        if not places:
            return random_json(rng)
        container, key = rng.choice(places)
        _change_part(container, key, places, rng)
    return changed


def _change_part(container: Any, key: Any, places: list[tuple[Any, Any]], rng: random.Random) -> None:
    match rng.randrange(8):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[rng.choice((*STRINGS, f"{key} ", str(key).upper()))] = container.pop(key)
        case 2:
            other, name = rng.choice(places)
            # The place may have gone with another change.
            found = other.get(name) if isinstance(other, dict) else None
            container[key] = copy.deepcopy(found)
        case 3 if isinstance(container[key], int | float) and container[key] is not None:
            container[key] = rng.choice((container[key] * 2, container[key] + 1, container[key] - 1, -container[key]))
        case 4 if isinstance(container[key], str):
            container[key] = mutate_text(container[key], rng)
        case 5:
            container[key] = random_json(rng)
        case _:
            same_type = [
                value for value in (random_json(rng) for _ in range(30)) if type(value) is type(container[key])
            ]
            container[key] = same_type[0] if same_type else random_json(rng)


def mutate_text(text: str, rng: random.Random) -> str:
    """A text with a few characters changed."""
    place = rng.randrange(len(text) + 1)
    return text[:place] + rng.choice((*STRINGS, "", text)) + text[place + rng.randrange(3) :]


def random_json(rng: random.Random) -> Any:
    """A value of any type, extreme ones among them."""
    choices: tuple[Any, ...] = (
        None, True, False, rng.choice(NUMBERS), rng.choice(FLOATS), rng.choice(STRINGS), NESTED, [], {}, {"a": 1},
    )  # fmt: skip
    return rng.choice(choices)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All parts of a JSON value as the dict or list that has them, and their key."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        for key in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            yield part, key
            waiting.append(part[key])


def json_bytes(value: Any, rng: random.Random) -> bytes:
    """JSON text of a value, sometimes with its bytes changed."""
    content = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    depth = rng.choice((1, 10, 500, MAX_DEPTH))
    content = content.replace(json.dumps(NESTED).encode(), b"[" * depth + b"]" * depth)
    return mutate_bytes(content, rng) if rng.randrange(8) == 0 else content


def mutate_json_file(content: bytes, rng: random.Random) -> bytes:
    """Change a JSON file: mostly its values, sometimes its bytes."""
    return json_bytes(mutate_json(json.loads(content), rng), rng)


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Change a safetensors file: the values of its header, or any bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    size = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + size], content[8 + size :]
    if rng.random() < 0.7:
        header = mutate_json_file(header, rng)
    else:
        data = mutate_bytes(data, rng) if data else data
    length = rng.choice(NUMBERS) % 2**64 if rng.randrange(20) == 0 else len(header)
    return length.to_bytes(8, "little") + header + data
