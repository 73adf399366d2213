"""Words of docs/glossary.md: docstrings, comments, help texts and messages use the terms of the field."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("runtime", "export", "benchmarks", "training")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
NAMES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"]
DOCUMENTS = [*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").glob("*.md"))]
# A docstring names the thing, or begins with an imperative verb.
RELATIVE = re.compile(r"(What|How|Which|Where|Whether|That|When|Who|Why)\b")
# Metaphors of our own, each for words of docs/glossary.md.
BANNED = re.compile(
    r"\b("
    r"flows?|drift(s|ed|ing)?|lanes?|tally|arrivals?|owed|looked at|looks? at|put up with|(has|have|had|a) say"
    r"|told in one line|made up|stretch(es)?|seal(s|ed|ing)?|trials?|in words|judges?|told|tells?|said|says?|knows"
    r")\b",
    re.IGNORECASE,
)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Strings of several words: help texts, log lines, messages of errors."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in [*FILES, *TESTS]
        for line, text in docstrings(ast.parse(path.read_text("utf-8")))
        if RELATIVE.match(text)
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_metaphors(folder: str) -> None:
    wrong = []
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != folder:
            continue
        source = path.read_text("utf-8")
        tree = ast.parse(source)
        for line, text in sorted({*docstrings(tree), *messages(tree), *comments(source)}):
            wrong += [f"{path.relative_to(ROOT)}:{line}: {found[0]!r}" for found in BANNED.finditer(text)]
    assert wrong == []


def test_no_metaphors_in_tests() -> None:
    """Docstrings and comments; strings of tests are inputs."""
    wrong = []
    for path in TESTS:
        source = path.read_text("utf-8")
        for line, text in sorted({*docstrings(ast.parse(source)), *comments(source)}):
            wrong += [f"{path.relative_to(ROOT)}:{line}: {found[0]!r}" for found in BANNED.finditer(text)]
    assert wrong == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_metaphors_in_documents(path: Path) -> None:
    prose = re.sub(r"`[^`\n]+`", "", path.read_text("utf-8"))
    assert [word[0] for word in BANNED.finditer(prose)] == []
