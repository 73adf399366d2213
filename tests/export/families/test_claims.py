"""Families claim checkpoints: exactly one claims each, and no other package has the name of a family in it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack.errors import CheckpointError
from embedpack_export import families as package
from embedpack_export.families import families, find_family
from embedpack_export.sources.checkpoint import Checkpoint, read_checkpoint
from tests.helpers.exports import exactly
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder
from tests.helpers.tiny_families import FAMILIES
from tests.helpers.tiny_jina_clip import make_jina_clip
from tests.helpers.tiny_jina_colbert import make_jina_colbert
from tests.helpers.tiny_jina_reranker import make_jina_reranker
from tests.helpers.tiny_jina_v3 import make_jina_v3
from tests.helpers.tiny_jina_v5 import make_jina_v5
from tests.helpers.tiny_jina_v5_omni import make_omni

EXPORTER = Path(__file__).parents[3] / "export/embedpack_export"
Maker = Callable[[Path], Path]


def maker(name: str) -> Maker:
    make = make_decoder if FAMILIES[name].tower == "decoder" else make_checkpoint
    return lambda folder: make(folder, name)


MAKERS: dict[str, Maker] = {
    **{name: maker(name) for name in FAMILIES},
    "qwen2_5_vl": make_v4,
    "jina_embeddings_v3": make_jina_v3,
    "jina_clip": make_jina_clip,
    "jina_colbert_v2": make_jina_colbert,
    "jina_embeddings_v5": lambda folder: make_jina_v5(folder, "nano"),
    "jina_embeddings_v5_omni": lambda folder: make_omni(make_jina_v5(folder, "small"), "small"),
    "jina_reranker_v2": make_jina_reranker,
}


def of(**config: object) -> Checkpoint:
    return Checkpoint(Path("model"), config, {}, ())


@pytest.mark.parametrize("name", MAKERS)
def test_exactly_one_family_claims_a_checkpoint(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(MAKERS[name](tmp_path / "checkpoint"))
    assert [family.name for family in families().values() if family.claims(checkpoint)] == [name]


def test_every_file_of_a_family_has_its_name() -> None:
    folder = EXPORTER / "families"
    assert all((folder / f"{name.replace('-', '_')}.py").is_file() for name in families())
    assert len(families()) == len([path for path in folder.glob("*.py") if "\nFAMILY = " in path.read_text("utf-8")])


@pytest.mark.parametrize("spelling", ["xlm-roberta", "xlm_roberta"])
def test_a_model_type_is_spelled_either_way(spelling: str) -> None:
    assert find_family(of(model_type=spelling)).name == "xlm-roberta"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"model_type": "gpt2", "architectures": ["GPT2Model"]},
            "architectures is ['GPT2Model']; unknown model_type 'gpt2'",
        ),
        ({"architectures": ["XModel"]}, "no model_type, and architectures is ['XModel']; known families: bert, "),
        ({"model_type": 5}, "model_type is 5, and architectures is None; known families: bert, "),
    ],
)
def test_a_checkpoint_that_no_family_claims(config: dict[str, object], reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_family(of(**config))
    assert str(caught.value).startswith(f"model/config.json: {reason}")


def test_two_families_that_claim_one_checkpoint_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    first = families()["bert"]
    second = replace(first, name="second")
    monkeypatch.setattr(package, "families", lambda: {"bert": first, "second": second})
    with pytest.raises(
        CheckpointError,
        match=exactly("model/config.json: the families bert and second both claim this checkpoint; report it"),
    ):
        find_family(of(model_type="bert"))


def test_no_family_is_named_outside_of_families_and_their_references() -> None:
    names = {name.replace("-", "_") for name in families()}
    places = [path for path in sorted(EXPORTER.rglob("*.py")) if not is_of_families(path.relative_to(EXPORTER))]
    assert len(places) > 50
    found = [(path.relative_to(EXPORTER).as_posix(), word) for path in places for word in words(path)]
    assert [(path, word) for path, word in found if word.replace("-", "_") in names] == []


def is_of_families(path: Path) -> bool:
    return path.parts[0] == "families" or path.parts[:2] == ("reference", "torch")


def words(path: Path) -> Iterator[str]:
    """Name of a file, its strings, and the last names of the modules that it imports."""
    yield path.stem.removesuffix("_keys")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.rpartition(".")[2]
