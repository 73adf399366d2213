"""Token ids under random settings: those of transformers and sentence-transformers, or a refusal by name."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from embedpack.errors import CheckpointError
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.source_reading import read_model_source
from tests.helpers.sentencepiece import make_llama, make_unigram
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder

own_reading = pytest.importorskip("embedpack_export.reference.torch.own_reading")
pytest.importorskip("sentence_transformers")

PHASES = (Phase.generate, Phase.shrink)
TEXTS = (
    "How do I reset the Router?",
    "  two  spaces   ",
    "a roof, ROOF roofs and  roof  .",
    "Über CAFÉ, naïve 42",
    "find the query: a\nb\tc",
    "the cat sleeps on a warm roof " * 8,
)
TOKEN = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value, or the key is missing."""
    return st.one_of(st.just(...), values)


COMMON = {
    "model_max_length": maybe(st.sampled_from([8, 20, 38, 512, int(1e30)])),
    "truncation_side": maybe(st.sampled_from(["left", "right"])),
    "padding_side": maybe(st.sampled_from(["left", "right"])),
    "clean_up_tokenization_spaces": maybe(st.booleans()),
    "split_special_tokens": maybe(st.just(False)),
    "extra_special_tokens": maybe(st.just(["[Q]"])),
}
OF_KIND: Mapping[str, dict[str, st.SearchStrategy[Any]]] = {
    "bert": {
        "tokenizer_class": maybe(st.sampled_from(["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast"])),
        "do_lower_case": maybe(st.booleans()),
        "strip_accents": maybe(st.sampled_from([None, True, False])),
        "tokenize_chinese_chars": maybe(st.booleans()),
    },
    "xlm-roberta": {
        "tokenizer_class": maybe(st.sampled_from(["XLMRobertaTokenizer", "PreTrainedTokenizerFast"])),
        "add_prefix_space": maybe(st.just(True)),
    },
    "llama 2": {
        "tokenizer_class": maybe(st.sampled_from(["LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"])),
        "legacy": maybe(st.booleans()),
        "add_bos_token": maybe(st.booleans()),
    },
    "llama": {
        "tokenizer_class": maybe(st.just("PreTrainedTokenizerFast")),
        "add_bos_token": maybe(st.booleans()),
        "add_eos_token": maybe(st.booleans()),
        "add_prefix_space": maybe(st.just(False)),
    },
}
LIMITS = {
    "max_seq_length": maybe(st.sampled_from([8, 16, 40])),
    "do_lower_case": maybe(st.booleans()),
}
SETTINGS = {
    "prompts": maybe(
        st.dictionaries(
            st.sampled_from(["query", "document", "passage"]), st.sampled_from(["", "find: ", "[Q] ", "x [Q]"])
        )
    ),
    "default_prompt_name": maybe(st.sampled_from([None, "query"])),
}


def fixed(rules: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(dict(rules)).map(
        lambda drawn: {key: value for key, value in drawn.items() if value is not ...}
    )


def write(path: Path, content: dict[str, Any] | None) -> None:
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folders() -> Iterator[dict[str, Path]]:
    """A checkpoint of each kind: word pieces, unigrams, bytes."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        found = {
            "bert": make_checkpoint(root / "bert", vocab_size=400),
            "xlm-roberta": make_checkpoint(root / "xlm-roberta", "xlm-roberta", vocab_size=400),
            "llama": make_decoder(root / "llama", "llama", vocab_size=400),
            "llama 2": make_decoder(root / "llama 2", "llama", vocab_size=400),
        }
        make_unigram().save(str(found["xlm-roberta"] / "tokenizer.json"))
        make_llama().save(str(found["llama 2"] / "tokenizer.json"))
        for kind, file in itertools.product(("llama", "llama 2"), ("modules.json", "1_Pooling/config.json")):
            (found[kind] / file).parent.mkdir(exist_ok=True)
            (found[kind] / file).write_bytes((found["bert"] / file).read_bytes())
        for folder in found.values():
            content = json.loads((folder / "tokenizer.json").read_text())
            number = 1 + max([len(content["model"]["vocab"]) - 1, *(token["id"] for token in content["added_tokens"])])
            content["added_tokens"].append({"id": number, "content": "[Q]", "special": True, **TOKEN})
            (folder / "tokenizer.json").write_text(json.dumps(content))
        yield found


def next_id(folder: Path) -> int:
    """Id of a new token, or that of an old one."""
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    known = (
        vocabulary if isinstance(vocabulary, dict) else {piece: number for number, (piece, _) in enumerate(vocabulary)}
    )
    return known.get("roof", 1 + max(len(known) - 1, *(token["id"] for token in content["added_tokens"])))


def opened(folder: Path) -> ModelSource | None:
    try:
        return read_model_source(folder, adapters={})
    except CheckpointError as refusal:
        # It has the name of a file.
        return None if ".json" in str(refusal) else pytest.fail(str(refusal))


@pytest.mark.parametrize("kind", OF_KIND)
@settings(
    max_examples=12, phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck), deadline=None
)
@given(data=st.data())
def test_ids_are_those_of_the_model(kind: str, folders: dict[str, Path], data: st.DataObject) -> None:
    folder = folders[kind]
    # sentence-transformers needs a padding token.
    with_config = kind.startswith("llama") or data.draw(st.booleans())
    config = data.draw(fixed({**COMMON, **OF_KIND[kind]}))
    if data.draw(st.booleans()):
        flags = data.draw(st.fixed_dictionaries({name: st.booleans() for name in TOKEN}))
        known = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        listed = [token for token in known if kind != "llama" or data.draw(st.booleans())]
        decoder = {str(token.pop("id")): token for token in listed}
        config["added_tokens_decoder"] = decoder | {
            str(next_id(folder)): {"content": "roof", "special": False, **flags}
        }
    write(folder / "tokenizer_config.json", {"pad_token": PADS[kind], **config} if with_config else None)
    write(folder / "sentence_bert_config.json", data.draw(fixed(LIMITS)))
    write(folder / "config_sentence_transformers.json", data.draw(fixed(SETTINGS)))
    source = opened(folder)

    if source is None:
        return
    reading = own_reading.open_reading(source, "default")
    (task,) = source.tasks.values()
    for name in (None, *task.prompts):
        prompt = task.prompt(name)
        for text in TEXTS:
            (found,) = source.processor.process(source.processor.items([text]), prompt)
            assert found.ids.tolist() == reading.ids(text, prompt).tolist(), (text, prompt)


PADS = {"llama 2": "</s>", "bert": "[PAD]", "xlm-roberta": "<pad>", "llama": "<pad>"}
