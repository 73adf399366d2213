"""Keys of tokenizer files: those of well-known and of newly saved tokenizers are accepted; wrong types are errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from embedpack.errors import CheckpointError
from embedpack_export.planning.model_source import ModelSource
from embedpack_export.planning.source_reading import read_model_source
from embedpack_export.sources.key_rules import check_keys
from embedpack_export.sources.tokenizer_keys import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG
from tests.helpers.sentencepiece import make_llama, make_unigram
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder

FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
ADDED = {"0": {"content": "[PAD]", "special": True, **FLAGS}}
BERT = {
    "cls_token": "[CLS]", "do_lower_case": True, "mask_token": "[MASK]", "model_max_length": 512, "pad_token": "[PAD]",
    "sep_token": "[SEP]", "strip_accents": None, "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer",
    "unk_token": "[UNK]",
}  # fmt: skip
XLM_ROBERTA = {
    "bos_token": "<s>", "clean_up_tokenization_spaces": True, "cls_token": "<s>", "eos_token": "</s>",
    "mask_token": {"content": "<mask>", "__type": "AddedToken", **FLAGS}, "pad_token": "<pad>", "sep_token": "</s>",
    "tokenizer_class": "XLMRobertaTokenizer", "unk_token": "<unk>",
}  # fmt: skip
KNOWN: dict[str, dict[str, Any]] = {
    "all-MiniLM-L6-v2": {**BERT, "do_basic_tokenize": True, "never_split": None, "name_or_path": "nreimers/MiniLM"},
    "bge-base-en-v1.5": {**BERT, "added_tokens_decoder": ADDED, "clean_up_tokenization_spaces": True},
    "gte-base": {
        **BERT, "max_length": 128, "pad_to_multiple_of": None, "pad_token_type_id": 0, "padding_side": "right",
        "stride": 0, "truncation_side": "right", "truncation_strategy": "longest_first",
    },
    "LaBSE": {**BERT, "full_tokenizer_file": None, "special_tokens_map_file": "old/special_tokens_map.json"},
    "multilingual-e5-large": {**XLM_ROBERTA, "model_max_length": 512, "added_tokens_decoder": ADDED},
    "bge-m3": {**XLM_ROBERTA, "model_max_length": 8192, "sp_model_kwargs": {}},
    "Llama-2-7b": {
        "add_bos_token": True, "add_eos_token": False, "bos_token": {"__type": "AddedToken", "content": "<s>", **FLAGS},
        "legacy": False, "model_max_length": 1000000000000000019884624838656, "pad_token": None,
        "padding_side": "right",
        "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer", "use_default_system_prompt": False,
        "spaces_between_special_tokens": False,
    },
    "Llama-3": {
        "added_tokens_decoder": ADDED, "chat_template": "{{ messages }}", "model_input_names": ["input_ids"],
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131072,
    },
    "SmolLM2": {"add_prefix_space": False, "tokenizer_class": "GPT2Tokenizer", "vocab_size": 49152},
    "Qwen2.5": {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": ADDED, "bos_token": None,
        "additional_special_tokens": ["<|im_start|>"], "chat_template": "{{ messages }}", "errors": "replace",
        "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    },
    "Qwen2.5-VL of transformers 5": {
        "backend": "tokenizers", "is_local": False, "local_files_only": False, "processor_class": "Qwen2_5_VLProcessor",
        "auto_map": {"AutoProcessor": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Processor"},
        "extra_special_tokens": ["<|im_start|>"], "image_token": "<|image_pad|>", "model_specific_special_tokens": {},
        "tokenizer_class": "Qwen2Tokenizer",
    },
    "all-mpnet-base-v2": {**BERT, "tokenizer_class": "MPNetTokenizer", "bos_token": "<s>", "eos_token": "</s>"},
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_configurations_of_well_known_tokenizers_are_accepted(name: str) -> None:
    check_keys(Path("tokenizer_config.json"), KNOWN[name], TOKENIZER_CONFIG)
    named = {key: value for key, value in KNOWN[name].items() if key.endswith("_token")}
    check_keys(Path("special_tokens_map.json"), named, SPECIAL_TOKENS_MAP)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"additional_special_tokens": 5}, "Expected `object | array | null`, got `int` - at `$.additional_"),
        ({"extra_special_tokens": [5]}, "Expected `str | object | null`, got `int` - at `$.extra_special_tokens[0]`"),
        ({"added_tokens_decoder": []}, "Expected `object | null`, got `array` - at `$.added_tokens_decoder`"),
        ({"added_tokens_decoder": {"x": {}}}, "Expected `str` matching regex '^[0-9]{1,9}$' - at `key` in `$.added_to"),
        ({"pad_token": 5}, "Expected `str | object | null`, got `int` - at `$.pad_token`"),
        ([], "Expected `object`, got `array`"),
    ],
)  # fmt: skip
def test_values_of_a_wrong_type(tmp_path: Path, content: object, reason: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        read_model_source(checkpoint, adapters={})
    assert str(caught.value).startswith(f"{path}: {reason}")


# --- files as the libraries save them


def ids(source: ModelSource, text: str) -> list[int]:
    (found,) = source.processor.process(source.processor.items([text]), "")
    return [int(number) for number in found.ids]


@pytest.mark.parametrize("kind", ["bert", "unigram", "llama", "llama 2", "qwen2"])
@pytest.mark.parametrize("named", [True, False])
def test_files_that_transformers_saves_are_accepted(tmp_path: Path, kind: str, named: bool) -> None:
    transformers = pytest.importorskip("transformers")
    classes = {
        "bert": "BertTokenizer",
        "unigram": "XLMRobertaTokenizer",
        "llama": "TokenizersBackend",
        "llama 2": "LlamaTokenizer",
        "qwen2": "Qwen2Tokenizer",
    }
    if kind in ("llama", "llama 2", "qwen2"):
        checkpoint = make_decoder(tmp_path / "toy", kind.split()[0], vocab_size=400)
    else:
        checkpoint = make_checkpoint(tmp_path / "toy", "bert" if kind == "bert" else "xlm-roberta")
    if kind == "unigram":
        make_unigram().save(str(checkpoint / "tokenizer.json"))
    if kind == "llama 2":
        make_llama().save(str(checkpoint / "tokenizer.json"))
    if named:
        config = {"tokenizer_class": classes[kind], "model_max_length": 30, "extra_special_tokens": ["[Q]"]}
        (checkpoint / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    source = read_model_source(checkpoint, adapters={}, pooling="mean")
    for text in ("How do I reset the Router?", "  two  spaces ", "a\nb\tc 42"):
        assert ids(source, text) == tokenizer(text, truncation=True, max_length=source.max_tokens)["input_ids"]
    added = Tokenizer.from_str(source.tokenizer_json.decode()).get_added_tokens_decoder()
    assert ("[Q]" in [token.content for token in added.values()]) == named


def test_a_folder_that_sentence_transformers_saves_is_accepted(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    checkpoint = make_checkpoint(tmp_path / "toy")
    expected = read_model_source(checkpoint, adapters={})
    library.SentenceTransformer(str(checkpoint), device="cpu").save_pretrained(str(tmp_path / "saved"))
    source = read_model_source(tmp_path / "saved", adapters={})
    assert (source.max_tokens, source.pooling) == (32, "mean")
    assert dict(next(iter(source.tasks.values())).prompts) == {
        "query": "query: ", "document": "", "passage": "passage: "
    }  # fmt: skip
    assert ids(source, "How do I reset the Router? " * 9) == ids(expected, "How do I reset the Router? " * 9)
