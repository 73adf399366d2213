"""Pairs, places in texts and decoding as transformers has them, with tokenizers of three families."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from embedpack.errors import CheckpointError
from embedpack.inputs.pairs import DOCUMENT, QUERY, PairEncoder
from embedpack.inputs.tokenizer import TextTokenizer
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.sources.pair_template import PairTemplate, pair_template
from tests.helpers import tiny_checkpoint, tiny_decoder
from tests.helpers.pairs import pair_scores
from tests.helpers.sentencepiece import make_unigram
from tests.helpers.tokenizers import places

transformers = pytest.importorskip("transformers")

UNKNOWN = ("[UNK]", "<unk>")
TEMPLATES = {
    "bert": ("[CLS] $A [SEP]", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"),
    "xlm-roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    "qwen3": ("$A <|endoftext|>", "$A <|endoftext|> $B <|endoftext|>"),
}
TEXTS = st.lists(st.sampled_from(["cat ", "the Roof", " ", "find ", "é", "42", "."]), max_size=20).map(
    lambda drawn: f"a{''.join(drawn)}b"
)


@dataclass(frozen=True)
class Opened:
    """The tokenizer of a checkpoint as transformers opens it, and that of a pack."""

    judge: Any
    tokenizer: TextTokenizer
    template: PairTemplate
    specials: dict[str, int]


def with_template(kind: str, tokenizer: Tokenizer) -> Tokenizer:
    single, pair = TEMPLATES[kind]
    names = {name.split(":")[0] for name in pair.split() if not name.startswith("$")}
    specials = [(name, tokenizer.token_to_id(name)) for name in sorted(names)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=specials)
    return tokenizer


def make_folder(kind: str, folder: Path) -> Path:
    if kind == "qwen3":
        tokenizer = tiny_decoder.make_tokenizer(kind)
        tiny_decoder.make_decoder(folder, kind)
    else:
        tokenizer = make_unigram() if kind == "xlm-roberta" else tiny_checkpoint.make_tokenizer(kind)
        tiny_checkpoint.make_checkpoint(folder, kind, vocab_size=400)
    with_template(kind, tokenizer).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opened]:
    found = {}
    for kind in TEMPLATES:
        folder = make_folder(kind, tmp_path_factory.mktemp(kind))
        source = read_model_source(folder, adapters={}, pooling="mean")
        content = json.loads(source.tokenizer_json)
        found[kind] = Opened(
            transformers.AutoTokenizer.from_pretrained(folder),
            TextTokenizer(source.tokenizer_json, 400),
            pair_template(content, folder / "tokenizer.json"),
            {
                token["content"]: token["id"]
                for token in content["added_tokens"]
                if token["special"] and token["content"] not in UNKNOWN
            },
        )
    return found


@pytest.mark.parametrize("kind", TEMPLATES)
@given(query=TEXTS, document=TEXTS, limit=st.integers(8, 60))
def test_pairs(kind: str, opened: dict[str, Opened], query: str, document: str, limit: int) -> None:
    it = opened[kind]
    rules = pair_scores(it.template.parts, limit, "longest", token_types=it.template.token_types)
    ((found,),) = PairEncoder(it.tokenizer, rules).encode({"query": query}, [document])
    expected = it.judge(query, document, truncation="longest_first", max_length=limit, return_token_type_ids=True)
    assert found.ids.tolist() == expected["input_ids"]
    assert found.types.tolist() == expected["token_type_ids"]


@pytest.mark.parametrize("kind", TEMPLATES)
@given(text=TEXTS, limit=st.integers(4, 60))
def test_places_in_a_text(kind: str, opened: dict[str, Opened], text: str, limit: int) -> None:
    it = opened[kind]
    (found,) = it.tokenizer.encode([text], "", max_tokens=limit, offsets=True)
    expected = it.judge(text, truncation=True, max_length=limit, return_offsets_mapping=True)
    assert found.ids.tolist() == expected["input_ids"]
    assert places(found) == [list(pair) for pair in expected["offset_mapping"]]
    (prompted,) = it.tokenizer.encode([text], "find: ", max_tokens=limit, offsets=True)
    whole = it.judge("find: " + text, truncation=True, max_length=limit, return_offsets_mapping=True)
    expected_places = [[max(a - 6, 0), b - 6] if b > 6 else [0, 0] for a, b in whole["offset_mapping"]]
    assert places(prompted) == expected_places


@pytest.mark.parametrize("kind", TEMPLATES)
@given(text=TEXTS)
def test_decoding(kind: str, opened: dict[str, Opened], text: str) -> None:
    it = opened[kind]
    (tokens,) = it.tokenizer.encode([text], "")
    ids = tokens.ids.tolist()
    assert it.tokenizer.decode(ids) == it.judge.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_special_tokens_of_texts_are_characters(kind: str, opened: dict[str, Opened]) -> None:
    it = opened[kind]
    rules = pair_scores(it.template.parts, 400, "document")
    expected = [number for part in it.template.parts if isinstance(part, tuple) for number in part]
    specials = set(it.specials.values())
    for token in it.specials:
        texts = [token, f"a{token}b", f"a {token} b", token * 2]
        for (found,) in PairEncoder(it.tokenizer, rules).encode({"query": f"cat {token}"}, texts):
            assert [number for number in found.ids.tolist() if number in specials] == expected


def test_the_parts_of_a_template(opened: dict[str, Opened]) -> None:
    template = opened["bert"].template
    assert template.parts == ((2,), QUERY, (3,), DOCUMENT, (3,))
    assert template.token_types
    assert not opened["xlm-roberta"].template.token_types


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("[CLS] $A $B [SEP]", "puts no token between the two texts of a pair; save a tokenizer that does"),
        (
            "[CLS]:1 $A:0 [SEP]:0 $B:1 [SEP]:1",
            r"token types \[1, 0, 0, 1, 1\]; supported: \[0, 0, 0, 1, 1\], or",
        ),
    ],
)
def test_templates_that_are_refused(pair: str, message: str) -> None:
    tokenizer = tiny_checkpoint.make_tokenizer("bert")
    specials = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair=pair, special_tokens=specials)
    with pytest.raises(CheckpointError, match=f"^tokenizer.json: .*{message}"):
        pair_template(json.loads(tokenizer.to_str()), Path("tokenizer.json"))
