"""Write requirements.txt: the runtime with the extras images and pdf, every package with its version and hashes.

python .ci/lock.py

Versions are those of constraints.txt. Hashes are those of the wheels that pip finds in its index for Linux on x86-64
and ARM, for each of PYTHONS.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXTRAS = ("images", "pdf")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
# Wheels of a machine for these or older versions of glibc.
GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
HEADER = """\
# Written by .ci/lock.py: the runtime with the extras images and pdf, for Linux on x86-64 and ARM.
# python -m pip install --require-hashes -r requirements.txt && python -m pip install --no-deps .
"""


def main() -> None:
    """Ask pip for the packages of each Python and machine, and write their versions and hashes."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for python, machine in product(PYTHONS, MACHINES):
        for pin, digest in locked(python, machine):
            hashes[pin].add(digest)
    lines = [f"{pin} \\\n    " + " \\\n    ".join(f"--hash=sha256:{digest}" for digest in sorted(found))
             for pin, found in sorted(hashes.items())]  # fmt: skip
    (ROOT / "requirements.txt").write_text(HEADER + "\n".join(lines) + "\n")


def locked(python: str, machine: str) -> Iterator[tuple[str, str]]:
    """Packages that pip would install, as name==version, and the sha256 of their wheels."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        platforms = [option for glibc in GLIBC for option in ("--platform", f"{glibc}_{machine}")]
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
            *("--only-binary", ":all:", "--python-version", python, *platforms, "--target", folder),
            *("--constraint", str(ROOT / "constraints.txt"), "--report", str(report), *wanted()),
        ]
        subprocess.run(command, check=True)
        content: dict[str, Any] = json.loads(report.read_bytes())
    for package in content["install"]:
        name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
        yield (
            f"{name}=={package['metadata']['version']}",
            package["download_info"]["archive_info"]["hashes"]["sha256"],
        )


def wanted() -> list[str]:
    """Requirements of the runtime and EXTRAS in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [requirement for extra in EXTRAS for requirement in project["optional-dependencies"][extra]]
    return sorted({*project["dependencies"], *extras})


if __name__ == "__main__":
    main()
