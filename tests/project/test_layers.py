"""Packages stand on layers: each imports only packages of lower layers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the lowest layer up; packages of one layer do not import each other.
LAYERS = {
    "runtime/embedpack": [
        {"errors"},
        {"extras", "progress", "storage", "host"},
        {"vectors"},
        {"pack", "scoring"},
        {"inputs"},
        {"engine", "corpus"},
        {"embedder"},
        {"reranker"},
        {"server"},
        {"__init__"},
        {"cli"},
        {"__main__"},
    ],
    "export/embedpack_export": [
        {"__init__", "arrays"},
        {"html", "metrics"},
        {"quantization", "sources"},
        {"graph"},
        {"families"},
        {"planning"},
        {"stages"},
        {"assembly"},
        {"reference"},
        {"accuracy_check", "evaluation"},
        {"pipeline"},
        {"commands"},
    ],
}


@pytest.mark.parametrize("folder", LAYERS)
def test_each_package_imports_only_lower_floors(folder: str) -> None:
    root = ROOT / folder
    layer = {name: number for number, names in enumerate(LAYERS[folder]) for name in names}
    wrong = []
    for path in sorted(root.rglob("*.py")):
        package = path.relative_to(root).with_suffix("").parts[0]
        for imported, line in imports(path, root.name):
            if imported != package and layer[imported] >= layer[package]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {package} imports {imported}")
    assert wrong == []


def imports(path: Path, top: str) -> list[tuple[str, int]]:
    """Packages below `top` that a file imports, with the line; `__init__` for names of `top` itself."""
    result = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == top:
                result.append((rest[0] if rest else "__init__", node.lineno))
    return result
