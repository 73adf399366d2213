"""Lower bounds, pinned versions and hashes agree."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED = (ROOT / "requirements.txt").read_text("utf-8").replace("\\\n", " ")
PIN = re.compile(r"^([\w.-]+)==(\S+)(.*)$", re.MULTILINE)


def normal(name: str) -> str:
    """Name of a package as indexes spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> Iterator[tuple[str, str]]:
    return ((normal(found[1]), found[2]) for found in PIN.finditer(text))


CONSTRAINTS = dict(pins((ROOT / "constraints.txt").read_text("utf-8")))


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)])
def test_pinned_versions_are_within_the_bounds(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.specifier.contains(CONSTRAINTS[normal(requirement.name)])


def test_locked_versions_are_those_of_the_constraints() -> None:
    locked = dict(pins(LOCKED))
    assert locked
    assert locked == {name: CONSTRAINTS[name] for name in locked}


def test_the_runtime_and_its_extras_are_locked() -> None:
    wanted = [*PROJECT["dependencies"], *EXTRAS["images"], *EXTRAS["pdf"]]
    assert {normal(Requirement(text).name) for text in wanted} <= dict(pins(LOCKED)).keys()


def test_every_locked_package_has_hashes() -> None:
    for found in PIN.finditer(LOCKED):
        assert re.fullmatch(r"( +--hash=sha256:[0-9a-f]{64})+ *", found[3]), found[1]
