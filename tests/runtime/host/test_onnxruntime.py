"""No telemetry: a process that embeds leaves no file behind and looks up no host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIBRARY_FOLDERS = ("runtime", "export", "benchmarks", "training")
HOME = Path("runtime/embedpack/host/onnxruntime.py")
# Peers run in environments of their own, which inherit the variable.
PEERS = Path("benchmarks/peers")
EMBED = """
import sys, time
from embedpack import Embedder
print(Embedder(sys.argv[1], threads=1).encode("a cat", precision="int8").codes.shape)
time.sleep(1)
"""
# Same signature as getaddrinfo of <netdb.h>; every look-up ends here and is written to a file.
LOOKUP_RECORDER = """
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    FILE *file = fopen(getenv("LOOKUPS"), "a");
    if (file) { fprintf(file, "%s\\n", node ? node : ""); fclose(file); }
    return EAI_FAIL;
}
"""


def embed(pack: Path, home: Path, **variables: str) -> None:
    """Embed a text in a fresh process whose home, cache and temporary folder are below `home`."""
    folders = {name: home / name.lower() for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {name: str(folder) for name, folder in folders.items()} | variables
    done = subprocess.run(
        [sys.executable, "-c", EMBED, str(pack)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(1, 32)", done.stderr


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_no_file_appears(tiny: Path, tmp_path: Path) -> None:
    embed(tiny, tmp_path)
    assert files(tmp_path) == []


def test_no_host_is_looked_up(tiny: Path, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the recorder of look-ups; on Debian: apt-get install gcc")
    library, lookups = tmp_path / "recorder.so", tmp_path / "lookups"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=LOOKUP_RECORDER.encode(), check=True
    )
    control = [sys.executable, "-c", "import socket; socket.getaddrinfo('control.invalid', 80)"]
    recording = {"LD_PRELOAD": str(library), "LOOKUPS": str(lookups)}
    subprocess.run(control, env={**os.environ, **recording}, capture_output=True, check=False)
    assert lookups.read_text() == "control.invalid\n"
    embed(tiny, tmp_path / "run", **recording)
    assert lookups.read_text() == "control.invalid\n"


def test_a_value_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os; from embedpack.host.onnxruntime import ort; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "yes")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "yes\n"


def test_onnxruntime_is_imported_in_one_place() -> None:
    direct = re.compile(r"^\s*(?:import|from) onnxruntime\b", re.MULTILINE)
    paths = [path for folder in LIBRARY_FOLDERS for path in (ROOT / folder).rglob("*.py")]
    importing = {path.relative_to(ROOT) for path in paths if direct.search(path.read_text("utf-8"))}
    assert {path for path in importing if not path.is_relative_to(PEERS)} == {HOME}
