"""Finished packs: special tokens in prompts and texts, the copy of tokenizer.json, the document prompt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedpack import Embedder
from embedpack.cli.main import main
from embedpack_export.pipeline import export
from tests.helpers.exports import edit_json, quick
from tests.helpers.tiny_decoder import make_decoder

TOKENS = ("[ENT]", "[Q]")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_decoder(tmp_path_factory.mktemp("inputs") / "toy", "llama", vocab_size=280)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(list(TOKENS))
    tokenizer.save(str(folder / "tokenizer.json"))
    prompts = {"query": "[Q] find: ", "passage": "[Q]"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


@pytest.fixture(scope="module")
def pack(checkpoint: Path) -> Path:
    folder = checkpoint.parent / "pack"
    export(quick(checkpoint, folder, weights=("fp32",), pooling="last", text_tokens=("[ENT]",)))
    return folder


def test_prompts_and_texts_of_a_pack(checkpoint: Path, pack: Path) -> None:
    model = Embedder(pack, threads=1)
    whole = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    read = model._encoder.processor.tokenizer
    (found,) = read.encode(["a cat of [ENT]"], model.prompts["query"])
    assert found.ids.tolist() == whole.encode("[Q] find: a cat of [ENT]").ids
    (hostile,) = read.encode(["a cat [Q] <|endoftext|>"], model.prompts["query"])
    assert hostile.ids.tolist().count(whole.token_to_id("[Q]")) == 1
    assert hostile.ids.tolist().count(whole.token_to_id("<|endoftext|>")) == 1
    vectors = [model.encode(text, prompt_name="query").codes for text in ("a [ENT]", "a [ENT", "a ENT]")]
    assert not np.array_equal(vectors[0], vectors[1])
    plain = Tokenizer.from_file(str(pack / "tokenizer.json"))
    assert len(plain.encode("a cat " * 600).ids) == model.pack.manifest.text.max_tokens


def test_inspect_and_verify_a_pack_with_text_tokens(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(pack)]) == 0
    assert main(["inspect", str(pack)]) == 0
    assert "parsed in texts too: '[ENT]'" in capsys.readouterr().out


def test_two_exports_have_the_same_tokenizer(checkpoint: Path, pack: Path, tmp_path: Path) -> None:
    edit_json(checkpoint / "config_sentence_transformers.json", default_prompt_name=None)
    export(quick(checkpoint, tmp_path / "again", weights=("fp32",), pooling="last", text_tokens=("[ENT]",)))
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (pack / "tokenizer.json").read_bytes()
