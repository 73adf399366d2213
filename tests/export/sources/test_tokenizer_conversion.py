"""Folders without tokenizer.json: the command of the message writes one that has the ids of the folder's own files."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from embedpack.errors import CheckpointError
from embedpack_export.planning.source_reading import read_model_source
from tests.helpers.tiny_checkpoint import make_checkpoint, make_tokenizer

TEXTS = ("How do I reset the Router?", "  two  spaces ", "Über CAFÉ, naïve 42", "[SEP] a </s> b", "")
COMMAND = re.compile(r"make one of ([\w.]+): (python -c .*) \(needs pip install ([\w ]+)\)$")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_model_source(folder, adapters={})
    return str(caught.value)


def convert(folder: Path, vocabulary: str, packages: str) -> None:
    """Run the script of the message's command, in this process, which has loaded transformers."""
    match = COMMAND.search(refusal(folder))
    assert match is not None
    assert match.group(1, 3) == (vocabulary, packages)
    python, option, script = shlex.split(match[2])
    assert (python, option) == ("python", "-c")
    (folder / "script.py").write_text(script)
    runpy.run_path(str(folder / "script.py"))


def without_tokenizer(folder: Path, model_type: str = "bert", **changes: int) -> Path:
    made = make_checkpoint(folder, model_type, **changes)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (made / name).unlink()
    return made


def test_word_pieces(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = without_tokenizer(tmp_path / "it's a model")
    vocabulary = make_tokenizer("bert").get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda token: vocabulary[token])))
    judge = transformers.AutoTokenizer.from_pretrained(folder)
    convert(folder, "vocab.txt", "transformers")
    tokenizer = read_model_source(folder, adapters={}).processor.tokenizer
    for text, tokens in zip(TEXTS, tokenizer.encode(TEXTS, ""), strict=True):
        expected = judge(text, split_special_tokens=True)["input_ids"]
        assert tokens.ids.tolist() == expected


def test_a_model_of_sentencepiece(tmp_path: Path) -> None:
    transformers, sentencepiece = pytest.importorskip("transformers"), pytest.importorskip("sentencepiece")
    folder = without_tokenizer(tmp_path / "checkpoint", "xlm-roberta", vocab_size=60)
    (tmp_path / "corpus.txt").write_text("how do i reset the router\nthe cat sleeps on a warm roof\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "model"),
        vocab_size=32,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "sentencepiece.bpe.model").write_bytes((tmp_path / "model.model").read_bytes())
    judge = transformers.AutoTokenizer.from_pretrained(folder)
    convert(folder, "sentencepiece.bpe.model", "transformers sentencepiece protobuf")
    tokenizer = read_model_source(folder, adapters={}).processor.tokenizer
    for text, tokens in zip(TEXTS[:3], tokenizer.encode(TEXTS[:3], ""), strict=True):
        assert tokens.ids.tolist() == judge(text)["input_ids"]


@pytest.mark.parametrize(
    ("content", "packages"),
    [(b"\n\x0e\n\x05<unk>", "transformers sentencepiece protobuf"), (b"IQ== 0\nIg== 1\n", "transformers tiktoken")],
)
def test_a_model_names_the_packages_that_read_it(content: bytes, packages: str, tmp_path: Path) -> None:
    folder = without_tokenizer(tmp_path / "checkpoint")
    (folder / "tokenizer.model").write_bytes(content)
    assert refusal(folder).endswith(f"(needs pip install {packages})")


def test_a_folder_in_place_of_a_model(tmp_path: Path) -> None:
    folder = without_tokenizer(tmp_path / "checkpoint")
    (folder / "tokenizer.model").mkdir()
    assert refusal(folder).endswith("tokenizer.model: not a regular file; put a copy of the file in its place")


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    folder = without_tokenizer(tmp_path / "checkpoint")
    assert "there is no other file of a tokenizer; copy tokenizer.json from the folder of the model" in refusal(folder)
    (folder / "qwen.tiktoken").write_bytes(b"IQ== 0\n")
    assert "tokenizer.json is missing, there is qwen.tiktoken; copy tokenizer.json" in refusal(folder)
