"""Document of inputs: its tables are those of the code, and each rule has a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedpack.errors import InputError
from embedpack_export.families import families
from embedpack_export.planning.key_tables import all_tables, counts, outcome, updated
from embedpack_export.sources.key_rules import Only

PAGE = Path(__file__).parents[2] / "docs/inputs.md"


def test_the_tables_are_those_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    assert updated(text) == text


def test_every_rule_has_a_reason() -> None:
    for table in all_tables():
        for key, rule in table.rules.items():
            assert len(outcome(rule).partition(": ")[2]) > 0, (table.file, key)
            assert not isinstance(rule, Only) or len(rule.remedy) > 8, (table.file, key)


def test_every_family_has_a_table() -> None:
    assert all(family.keys for family in families().values())
    assert set(counts()) == {"followed", "no effect", "refused unless"}


def test_a_page_without_its_block_is_refused() -> None:
    with pytest.raises(InputError, match="are missing"):
        updated("# Inputs\n")
