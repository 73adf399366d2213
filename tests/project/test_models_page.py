"""Page of models: its table is that of the code, its families exist, and measured weights are in the results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from embedpack.errors import InputError
from embedpack_export.families import families
from embedpack_export.families.known_models import KNOWN_MODELS, KnownModel
from embedpack_export.planning.support_table import ordered, updated
from tests.helpers.tiny_families import FAMILIES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/models.md"
# Tests of families that have no tiny checkpoint among FAMILIES.
OWN_TESTS = (
    "test_jina_clip.py",
    "test_jina_colbert_v2.py",
    "test_jina_embeddings_v3.py",
    "test_roberta.py",
    "test_qwen2_5_vl.py",
    "test_jina_embeddings_v5.py",
    "test_jina_embeddings_v5_omni.py",
    "test_jina_reranker_v2.py",
    "test_jina_reranker_m0.py",
    "test_jina_reranker_v3.py",
    "test_jina_reranker_v3_5.py",
)


def test_the_table_is_that_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    assert updated(text) == text


def test_every_family_has_a_model_and_every_model_a_family() -> None:
    assert {model.family for model in KNOWN_MODELS} == set(families())


def test_the_layout_of_every_family_is_tested() -> None:
    of_tests = [(ROOT / "tests/export/families" / name).read_text("utf-8") for name in OWN_TESTS]
    tiny = {name.replace("-", "_") for name in FAMILIES}
    for family in families():
        assert family.replace("-", "_") in tiny or any(f'"{family}"' in text for text in of_tests), family


def test_each_model_stands_once() -> None:
    assert max(Counter(model.name for model in KNOWN_MODELS).values()) == 1


def test_permissive_licences_come_first() -> None:
    permissive = [model.permissive for model in ordered()]
    assert permissive == sorted(permissive, reverse=True)
    assert set(permissive) == {True, False}


@pytest.mark.parametrize("model", [model for model in KNOWN_MODELS if model.results], ids=lambda model: model.name)
def test_measured_weights_are_those_of_the_results(model: KnownModel) -> None:
    content = (ROOT / "benchmarks/results" / str(model.results)).read_text("utf-8").lower()
    assert model.name.partition("/")[2].lower() in content


def test_a_page_without_its_block_is_refused() -> None:
    with pytest.raises(InputError, match="are missing"):
        updated("# Models\n")
