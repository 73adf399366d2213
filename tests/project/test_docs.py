"""Documents: their paths, links and commands exist, figures are those of the results files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import embedpack
from benchmarks.__main__ import BENCHMARKS
from benchmarks.readme import FILES, PLOTS, updated
from embedpack.cli.main import main
from embedpack_export.families import families

ROOT = Path(__file__).parents[2]
FOLDERS = (
    ".", "docs", "examples", "benchmarks", "training/default_model", "training/default_colbert",
    "training/default_reranker", "export/embedpack_export/data",
)  # fmt: skip
DOCUMENTS = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
README = (ROOT / "README.md").read_text("utf-8")
ADAPTERS = ROOT / "export/embedpack_export/data/default-model/adapter_model.safetensors"


def code_blocks(text: str, language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for name, code in blocks if name == language]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_path_exists(document: Path) -> None:
    text = (ROOT / document).read_text("utf-8")
    spans = " ".join(re.findall(r"`([^`\n]+)`", text))
    names = re.findall(r"(?<![\w./-])(?:runtime|export|tests|benchmarks|training|docs)/[\w./-]*", spans)
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_file(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text("utf-8"))
    assert [target for target in targets if not (ROOT / document.parent / target).exists()] == []


def test_every_package_is_on_the_code_map() -> None:
    code_map = (ROOT / "docs/code-map.md").read_text("utf-8")
    packages = [path.parent.relative_to(ROOT) for path in ROOT.glob("[re]*/embedpack*/*/__init__.py")]
    assert len(packages) > 15
    assert [str(package) for package in packages if f"`{package}/`" not in code_map] == []


def test_the_readme_fits_the_first_screens() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_command_has_help(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / document).read_text("utf-8")
    lines = "\n".join(code_blocks(text, "")) + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", text))
    for command, rest in set(re.findall(r"^embedpack (\w+)((?: accuracy| sweep)?)", lines, re.MULTILINE)):
        with pytest.raises(SystemExit) as stopped:
            main([command, *rest.split(), "-h"])
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        for line in re.findall(rf"^embedpack {command}{rest}\b(.*)$", lines, re.MULTILINE):
            assert [option for option in re.findall(r"(?<!\S)--[\w-]+", line) if option not in printed] == []


def test_every_benchmark_is_described() -> None:
    described = (ROOT / "benchmarks/README.md").read_text("utf-8")
    assert [name for name in BENCHMARKS if f"`python -m benchmarks {name} " not in described.replace("`", " `")] == []


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert len(makefile.splitlines()) <= 25
    for target in re.findall(r"^make (\w+)", "\n".join(code_blocks(README, "")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readme_names_every_family() -> None:
    (sentence,) = re.findall(r"^Families: (.*?)\. Adapters:", README, re.MULTILINE | re.DOTALL)
    named = re.sub(r"[^a-z0-9]", "", sentence.lower())
    assert [name for name in families() if re.sub(r"[^a-z0-9]", "", name.lower()) not in named] == []


def test_no_heading_stands_twice_in_a_release() -> None:
    for release in (ROOT / "CHANGELOG.md").read_text("utf-8").split("\n## "):
        headings = re.findall(r"^### (.*)$", release, re.MULTILINE)
        assert len(set(headings)) == len(headings)


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
    assert [name for name in (re.split(r"[\[=><]", item)[0] for item in wanted) if name not in pins] == []


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


@pytest.mark.parametrize("file", PLOTS)
def test_the_plots_of_documents_are_those_of_the_results_files(file: str) -> None:
    assert (ROOT / file).read_text("utf-8") == PLOTS[file]()


def test_a_document_without_its_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the lines <!-- .* end --> are missing"):
        updated(FILES[0], "# A document\n")
