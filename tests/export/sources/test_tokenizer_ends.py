"""Panics of the tokenizers library while a checkpoint is read are errors of the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedpack.errors import CheckpointError
from embedpack_export.sources.tokenizer_ends import check_ends, library_errors
from tests.helpers.tiny_checkpoint import make_tokenizer


def test_a_template_with_a_token_that_it_does_not_define(tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(make_tokenizer("bert").to_str())
    check_ends(document, {}, tmp_path / "tokenizer_config.json", of_bert=True)
    document["post_processor"]["single"][0] = {"SpecialToken": {"id": "[NONE]", "type_id": 0}}
    message = r"tokenizer\.json: the tokenizers library cannot read it: .*; copy it again$"
    with pytest.raises(CheckpointError, match=message):
        check_ends(document, {}, tmp_path / "tokenizer_config.json", of_bert=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_interrupts_are_let_through(error: BaseException) -> None:
    with pytest.raises(type(error)), library_errors(Path("tokenizer.json")):
        raise error
