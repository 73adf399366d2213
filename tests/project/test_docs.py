"""The README says what is true: paths exist, commands exist, its numbers are those of the results files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import embedpack
from benchmarks.__main__ import BENCHMARKS
from benchmarks.readme import FILES, updated
from embedpack.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
ADAPTERS = ROOT / "export/embedpack_export/data/default-model/adapter_model.safetensors"


def code_blocks(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in blocks if name == language]


def test_every_path_in_the_readme_exists() -> None:
    names = re.findall(r"`((?:runtime|export|tests|benchmarks|training)/[\w./-]*)`", README)
    assert len(names) > 10
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_code_map_resolves_short_names() -> None:
    rows = re.findall(r"^\| (`export/embedpack_export/.*?) \|", README, re.MULTILINE)
    for row in rows:
        for name in re.findall(r"`(?:export/embedpack_export/)?([\w/]+\.py)`", row):
            assert (ROOT / "export" / "embedpack_export" / name).is_file(), name


def test_every_command_of_the_readme_has_help() -> None:
    used = set(re.findall(r"^embedpack (\w+)", "\n".join(code_blocks("")), re.MULTILINE))
    assert used >= {"export", "embed", "search", "inspect", "verify"}
    for command in used:
        with pytest.raises(SystemExit) as stopped:
            main([command, "-h"])
        assert stopped.value.code == 0


def test_every_benchmark_is_described() -> None:
    described = (ROOT / "benchmarks/README.md").read_text("utf-8")
    assert [name for name in BENCHMARKS if f"`python -m benchmarks {name} " not in described.replace("`", " `")] == []


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert len(makefile.splitlines()) <= 25
    for target in re.findall(r"^make (\w+)", "\n".join(code_blocks("")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == embedpack.__version__


def test_every_dependency_is_pinned() -> None:
    pins = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    assert [name for name in (re.split(r"[=><]", item)[0] for item in wanted) if name not in pins] == []


def test_no_tracked_file_is_large() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name]
    large = [path for path in paths if path.is_file() and path.stat().st_size > 2_000_000]
    # What was trained for the default model has to travel with the repository.
    assert large == [ADAPTERS]
    assert ADAPTERS.stat().st_size <= 6_000_000


@pytest.mark.parametrize("file", FILES)
def test_the_tables_of_a_document_are_those_of_the_results_files(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    assert updated(file, text) == text


def test_a_document_without_its_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the lines <!-- .* end --> are missing"):
        updated(FILES[0], "# A document\n")
