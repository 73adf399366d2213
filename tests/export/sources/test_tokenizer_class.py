"""Normalizers that transformers' XLM-RoBERTa tokenizer does not apply: read as it does, and named."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from embedpack_export.planning.source_reading import read_model_source
from tests.helpers.sentencepiece import make_unigram
from tests.helpers.tiny_checkpoint import make_checkpoint

own_reading = pytest.importorskip("embedpack_export.reference.torch.own_reading")

SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
LOWER = {"type": "Lowercase"}
ACCENTS = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, SPACES]}
TEXTS = ("the  cat", "THE Cat", "café ﬁ", "a roof")


def make_folder(folder: Path, normalizer: dict[str, Any] | None) -> Path:
    made = make_checkpoint(folder, "xlm-roberta", vocab_size=400)
    content = {**json.loads(make_unigram().to_str()), "normalizer": normalizer}
    (made / "tokenizer.json").write_text(json.dumps(content))
    config = {"tokenizer_class": "XLMRobertaTokenizer", "pad_token": "<pad>"}
    (made / "tokenizer_config.json").write_text(json.dumps(config))
    return made


@pytest.mark.parametrize(
    ("normalizer", "dropped"), [(None, None), (SPACES, None), (LOWER, "Lowercase"), (ACCENTS, "NFD, StripAccents")]
)
def test_texts_are_read_as_sentence_transformers_reads_them(
    normalizer: dict[str, Any] | None, dropped: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path / "toy", normalizer)
    with caplog.at_level(logging.WARNING, "embedpack"):
        source = read_model_source(folder, adapters={})
    reading = own_reading.open_reading(source, "default")
    for text, tokens in zip(TEXTS, source.processor.tokenizer.encode(TEXTS, ""), strict=True):
        assert tokens.ids.tolist() == reading.ids(text, "").tolist()
    expected = (
        f"{folder / 'tokenizer.json'}: transformers' XLMRobertaTokenizer does not apply the normalizers {dropped} of "
        "tokenizer.json; texts are read without them, as sentence-transformers reads them"
    )
    assert caplog.messages == ([] if dropped is None else [expected])
