"""Conversion of texts to token ids: one tokenizer and one length from the files of a checkpoint and its adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from embedpack.errors import CheckpointError
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.planning.text_inputs import TextOptions
from tests.helpers.exports import edit_json, exactly, query_update, write_adapter
from tests.helpers.sentencepiece import make_unigram
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "toy", vocab_size=300)


def adapter(checkpoint: Path, name: str = "retrieval") -> Path:
    return write_adapter(checkpoint.parent / name, query_update())


def write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def ids(source: ModelSource, text: str, prompt: str = "") -> list[int]:
    (found,) = source.processor.process(source.processor.items([text]), prompt)
    return [int(number) for number in found.ids]


def refuse(checkpoint: Path, message: str, **arguments: Any) -> None:
    with pytest.raises(CheckpointError, match=exactly(message)):
        read_model_source(checkpoint, **{"adapters": {}, **arguments})


# --- the length


def test_the_length_of_newer_versions_stands_in_tokenizer_config(checkpoint: Path) -> None:
    (checkpoint / "sentence_bert_config.json").unlink()
    write(checkpoint / "tokenizer_config.json", {"model_max_length": 20})
    assert read_model_source(checkpoint, adapters={}).max_tokens == 20
    write(checkpoint / "sentence_bert_config.json", {"max_seq_length": 12})
    assert read_model_source(checkpoint, adapters={}).max_tokens == 12
    write(checkpoint / "sentence_bert_config.json", {"max_seq_length": 12, "processor_kwargs": {"model_max_length": 9}})
    assert read_model_source(checkpoint, adapters={}).max_tokens == 9


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_the_length_may_stand_in_a_file_of_another_name(checkpoint: Path, kind: str) -> None:
    (checkpoint / "sentence_bert_config.json").unlink()
    write(checkpoint / f"sentence_{kind}_config.json", {"max_seq_length": 12})
    assert read_model_source(checkpoint, adapters={}).max_tokens == 12


@pytest.mark.parametrize("length", [1, 0, -4, "12", True])
def test_a_length_without_room_for_a_token(checkpoint: Path, length: object) -> None:
    write(checkpoint / "tokenizer_config.json", {"model_max_length": length})
    path = checkpoint / "tokenizer_config.json"
    refuse(checkpoint, f"{path}: model_max_length is {length!r}; it is a number of tokens, 3 or more")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 16}),
        ("sentence_distilbert_config.json", {"max_seq_length": 16}),
        ("tokenizer_config.json", {"model_max_length": 16}),
    ],
)
def test_the_length_of_the_adapter_counts(checkpoint: Path, file: str, content: object) -> None:
    folder = adapter(checkpoint)
    assert read_model_source(checkpoint, adapters={"retrieval": folder}).max_tokens == 32
    write(folder / file, content)
    assert read_model_source(checkpoint, adapters={"retrieval": folder}).max_tokens == 16


def test_a_copy_of_the_tokenizer_does_not_raise_the_length(checkpoint: Path) -> None:
    folder = adapter(checkpoint)
    for place in (checkpoint, folder):
        write(place / "tokenizer_config.json", {"model_max_length": 40})
    assert read_model_source(checkpoint, adapters={"retrieval": folder}).max_tokens == 32


def test_adapters_of_different_lengths(checkpoint: Path) -> None:
    folders = {name: adapter(checkpoint, name) for name in ("code", "retrieval")}
    write(folders["code"] / "sentence_bert_config.json", {"max_seq_length": 8})
    refuse(
        checkpoint,
        f"the adapters have different maximum lengths, a pack has one: {folders['code']} has 8, "
        f"{folders['retrieval']} has 32; pass --max-length",
        adapters=folders,
    )
    assert read_model_source(checkpoint, adapters=folders, texts=TextOptions(20)).max_tokens == 20


# --- the tokenizer


def test_lower_case_of_sentence_transformers(checkpoint: Path) -> None:
    edit_json(checkpoint / "tokenizer.json", normalizer=None)
    assert ids(read_model_source(checkpoint, adapters={}), "CAT") != ids(
        read_model_source(checkpoint, adapters={}), "cat"
    )
    edit_json(checkpoint / "sentence_bert_config.json", do_lower_case=True)
    source = read_model_source(checkpoint, adapters={})
    assert ids(source, "CAT") == ids(source, "cat")


def test_texts_may_lose_their_beginning(checkpoint: Path) -> None:
    write(checkpoint / "tokenizer_config.json", {"truncation_side": "left", "do_lower_case": True})
    source = read_model_source(checkpoint, adapters={}, texts=TextOptions(4))
    assert ids(source, "the cat sleeps on a roof") == ids(source, "a roof")
    write(checkpoint / "tokenizer_config.json", {"truncation_side": "middle"})
    path = checkpoint / "tokenizer_config.json"
    refuse(checkpoint, f"{path}: truncation_side is 'middle'; supported: left, right")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"add_bos_token": False}, "add_bos_token is False, tokenizer.json adds 1 tokens there; keep the one that "),
        ({"cls_token": "[PAD]", "sep_token": "[SEP]"}, "cls_token is '[PAD]', tokenizer.json adds id 2 there; save "),
        ({"split_special_tokens": True}, "split_special_tokens is True; supported: false, null; special tokens of "),
        ({"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}, "auto_map is {'AutoTokenizer': ['tokenization_x"),
        ({"added_tokens_decoder": {"7": {"content": "[SEP]"}}}, "added_tokens_decoder lacks '[PAD]' of tokenizer.json"),
        ({"tokenizer_class": "X", "added_tokens_decoder": {"7": {"content": "[SEP]"}}}, "gives '[SEP]' the id 7, "),
        ({"tokenizer_class": "X", "added_tokens_decoder": {"999": {"content": "SKU"}}}, "gives 'SKU' the id 999, "),
        ({"fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.json"]}, "fast_tokenizer_files is ['tokenizer.json'"),
        ({"tokenize_chinese": True}, "unknown key 'tokenize_chinese' with the value True; did you mean 'tokenize_chi"),
    ],
)  # fmt: skip
def test_contradictions_are_named(checkpoint: Path, changes: dict[str, Any], reason: str) -> None:
    write(checkpoint / "tokenizer_config.json", changes)
    with pytest.raises(CheckpointError) as caught:
        read_model_source(checkpoint, adapters={})
    assert str(caught.value).startswith(f"{checkpoint / 'tokenizer_config.json'}: {reason}")


@pytest.mark.parametrize("key", ["add_bos_token", "add_eos_token"])
@pytest.mark.parametrize("value", [True, False])
def test_ends_that_tokenizer_json_has_are_no_contradiction(tmp_path: Path, key: str, value: bool) -> None:
    checkpoint = make_decoder(tmp_path / "toy", "llama")
    write(checkpoint / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", key: value})
    # tokenizer.json adds <|endoftext|> at the end.
    if value == (key == "add_eos_token"):
        assert ids(read_model_source(checkpoint, adapters={}, pooling="last"), "a")[-1] == 0
    else:
        with pytest.raises(CheckpointError, match=rf"{key} is {value}, tokenizer\.json adds \d tokens there"):
            read_model_source(checkpoint, adapters={}, pooling="last")


def test_ids_that_are_random_are_refused(tmp_path: Path) -> None:
    checkpoint = make_decoder(tmp_path / "toy", "llama")
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.1
    write(checkpoint / "tokenizer.json", content)
    message = f"{checkpoint / 'tokenizer.json'}: model.dropout is 0.1, which makes ids random; set it to null"
    refuse(checkpoint, message, pooling="last")


def test_a_case_that_no_file_decides(checkpoint: Path) -> None:
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    write(checkpoint / "tokenizer.json", content)
    write(checkpoint / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    refuse(
        checkpoint,
        f"{checkpoint / 'tokenizer_config.json'}: do_lower_case is missing, for which BertTokenizer takes True; "
        "tokenizer.json has lowercase False. Add do_lower_case with the right value",
    )
    for lower in (True, False):
        edit_json(checkpoint / "tokenizer_config.json", do_lower_case=lower)
        source = read_model_source(checkpoint, adapters={})
        assert (ids(source, "CAT") == ids(source, "cat")) == lower


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("strip", [True, False])
def test_accents_follow_the_case_unless_a_file_decides(checkpoint: Path, lower: bool, strip: bool) -> None:
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    content["normalizer"].update(lowercase=lower, strip_accents=strip)
    write(checkpoint / "tokenizer.json", content)
    path = checkpoint / "tokenizer_config.json"
    write(path, {"tokenizer_class": "BertTokenizer", "do_lower_case": lower})
    if lower == strip:
        assert read_model_source(checkpoint, adapters={}).max_tokens == 32
    else:
        refuse(
            checkpoint,
            f"{path}: strip_accents is missing, for which BertTokenizer takes None; tokenizer.json has strip_accents "
            f"{strip}. Add strip_accents with the right value",
        )


# --- tokenizers of adapters


def test_the_tokenizer_of_the_adapter_is_taken(checkpoint: Path) -> None:
    folder = adapter(checkpoint)
    shutil.copy(checkpoint / "tokenizer.json", folder)
    plain = read_model_source(checkpoint, adapters={"retrieval": folder})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["SKU4711"])
    tokenizer.save(str(folder / "tokenizer.json"))
    source = read_model_source(checkpoint, adapters={"retrieval": folder})
    assert ids(source, "SKU4711") == tokenizer.encode("SKU4711").ids
    assert len(ids(source, "SKU4711")) == 3
    assert source.fingerprint != plain.fingerprint


def test_adapters_with_different_tokenizers(checkpoint: Path) -> None:
    folders = {name: adapter(checkpoint, name) for name in ("code", "retrieval")}
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    write(folders["code"] / "tokenizer.json", content)
    refuse(
        checkpoint,
        f"{folders['code']} and {folders['retrieval']} have different tokenizers, a pack has one; export the adapters "
        "to packs of their own",
        adapters=folders,
    )
    assert read_model_source(checkpoint, adapters={"code": folders["code"]}).max_tokens == 32


def test_a_tokenizer_of_another_form_in_the_folder_of_the_adapter(checkpoint: Path) -> None:
    folder = adapter(checkpoint)
    (folder / "vocab.txt").write_text("[PAD]\n")
    name = f"'\"'\"'{folder}'\"'\"'"  # quoted in a quoted argument of a shell
    script = f"from transformers import AutoTokenizer as T; T.from_pretrained({name}).save_pretrained({name})"
    refuse(
        checkpoint,
        f"{folder}: vocab.txt is another tokenizer than the checkpoint's, without a tokenizer.json; make one: "
        f"python -c '{script}' (needs pip install transformers)",
        adapters={"retrieval": folder},
    )
    shutil.copy(folder / "vocab.txt", checkpoint)
    assert read_model_source(checkpoint, adapters={"retrieval": folder}).max_tokens == 32


def test_tokens_that_an_adapter_adds_without_a_tokenizer(checkpoint: Path) -> None:
    folder, count = adapter(checkpoint), len(json.loads((checkpoint / "tokenizer.json").read_text())["model"]["vocab"])
    write(folder / "added_tokens.json", {"SKU4711": count})
    assert ids(read_model_source(checkpoint, adapters={"retrieval": folder}), "SKU4711")[1:-1] == [count]
    write(folder / "added_tokens.json", {"SKU4711": 3})
    with pytest.raises(CheckpointError, match=r"added_tokens\.json: gives 'SKU4711' the id 3, "):
        read_model_source(checkpoint, adapters={"retrieval": folder})


# --- the padding token


@pytest.mark.parametrize("value", [-1, 999, None])
@pytest.mark.parametrize("place", ["pad_token", "padding", "eos_token_id"])
def test_a_padding_token_that_config_json_does_not_have(tmp_path: Path, value: int | None, place: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", "llama", pad_token_id=value, eos_token_id=[5, 6])
    expected = {"pad_token": 1, "padding": 7, "eos_token_id": 5}[place]
    if place == "pad_token":
        write(checkpoint / "tokenizer_config.json", {"tokenizer_class": "X", "pad_token": "<pad>"})
    if place == "padding":
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        tokenizer.enable_padding(pad_id=7)
        tokenizer.save(str(checkpoint / "tokenizer.json"))
    assert read_model_source(checkpoint, adapters={}, pooling="last").texts.pad_token_id == expected


# --- special tokens


def test_special_tokens_that_stand_in_texts(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.add_special_tokens(["[ENT]"])
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    number = tokenizer.token_to_id("[ENT]")
    assert number not in ids(read_model_source(checkpoint, adapters={}), "[ENT] cat [SEP]")
    source = read_model_source(checkpoint, adapters={}, texts=TextOptions(text_tokens=("[ENT]",)))
    assert ids(source, "[ENT] cat [SEP]")[1] == number
    assert ids(source, "[ENT] cat [SEP]").count(3) == 1
    refuse(
        checkpoint,
        f"{checkpoint / 'tokenizer.json'}: '[X]' is no special token; there are [PAD], [UNK], [CLS], [SEP], [ENT]",
        texts=TextOptions(text_tokens=("[X]",)),
    )


def test_a_special_token_beyond_the_table_is_refused_in_a_prompt_alone(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.add_special_tokens(["[Q]"])
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    assert read_model_source(checkpoint, adapters={}).max_tokens == 32
    edit_json(checkpoint / "config_sentence_transformers.json", prompts={"query": "[Q] "})
    number = tokenizer.token_to_id("[Q]")
    refuse(
        checkpoint,
        f"prompt 'query': has the token {number}, the embedding table {number} rows; the tokenizer belongs to another "
        "model",
    )


@pytest.mark.parametrize("kind", ["bert", "unigram", "llama"])
def test_no_text_becomes_a_special_token(tmp_path: Path, kind: str) -> None:
    checkpoint = {
        "bert": lambda: make_checkpoint(tmp_path / "toy"),
        "unigram": lambda: make_checkpoint(tmp_path / "toy", "xlm-roberta"),
        "llama": lambda: make_decoder(tmp_path / "toy", "llama"),
    }[kind]()
    if kind == "unigram":
        make_unigram().save(str(checkpoint / "tokenizer.json"))
    source = read_model_source(checkpoint, adapters={}, pooling="mean")
    tokenizer = Tokenizer.from_str(source.tokenizer_json.decode())
    added = tokenizer.get_added_tokens_decoder()
    specials = {number: token.content for number, token in added.items() if "unk" not in token.content.lower()}
    around = sorted(token for token in tokenizer.encode("").ids if token in specials)
    for text in (
        f"{form}".format(token) for token in specials.values() for form in ("{0}", "a{0}b", "a {0} b", "{0}{0}")
    ):
        assert sorted(token for token in ids(source, text) if token in specials) == around, text


# --- the copy in the pack


@pytest.mark.parametrize("kind", ["bert", "unigram"])
def test_a_plain_reader_of_the_packs_file_gets_the_packs_ids(tmp_path: Path, kind: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", "bert" if kind == "bert" else "xlm-roberta")
    if kind == "unigram":
        make_unigram().save(str(checkpoint / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=7, pad_id=3, direction="left")
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    source = read_model_source(checkpoint, adapters={})
    plain = Tokenizer.from_str(source.tokenizer_json.decode())
    texts = ["the cat", "find a roof " * 30, "query"]
    found = plain.encode_batch(texts)
    pad = source.texts.pad_token_id
    for text, encoding in zip(texts, found, strict=True):
        expected = ids(source, text)
        assert encoding.ids == expected + [pad] * (32 - len(expected))
        assert sum(encoding.attention_mask) == len(expected)
    assert source.tokenizer_json == read_model_source(checkpoint, adapters={}).tokenizer_json
