"""Keys of the files of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedpack_export.sources.config_keys import own_code
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, NoEffect, Only, Rule, no_effect


def own_tokenizer(value: Any) -> str | None:
    """Reason to refuse an `auto_map`: a tokenizer in a file of the checkpoint; image processors have others."""
    entries = value if isinstance(value, dict) else {"AutoTokenizer": value}
    return own_code({name: code for name, code in entries.items() if name == "AutoTokenizer"})


RECORDS = """name_or_path special_tokens_map_file tokenizer_file vocab_file merges_file full_tokenizer_file backend
is_local local_files_only files_loaded use_fast from_slow tokenizer_type device_map verbose processor_class vocab_size
_commit_hash do_basic_tokenize never_split legacy sp_model_kwargs keep_accents remove_space trust_remote_code
wordpieces_prefix unk_id"""
DECODING = """clean_up_tokenization_spaces errors spaces_between_special_tokens trim_offsets
clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"""
CHAT = "chat_template response_template response_schema chat_control_tokens use_default_system_prompt"
FORM = """model_input_names return_token_type_ids padding_side pad_to_multiple_of pad_token_type_id max_length
stride truncation_strategy padding"""
NAMED_TOKENS: Mapping[str, Rule] = {
    "pad_token": Followed("padding token, if pad_token_id of config.json is no row of the embedding table"),
    "*_token": Followed("a special token: parsed in prompts, text in texts"),
    "additional_special_tokens": Followed("special tokens: parsed in prompts, text in texts"),
    "extra_special_tokens": Followed("special tokens: parsed in prompts, text in texts"),
}
TOKENIZER_CONFIG = KeyTable(
    "tokenizer_config.json",
    {
        **NAMED_TOKENS,
        "model_specific_special_tokens": Followed("special tokens: parsed in prompts, text in texts"),
        "added_tokens_decoder": Followed("added tokens; an id that tokenizer.json has for another token is refused"),
        "tokenizer_class": Followed("BertTokenizer reads do_lower_case, strip_accents and tokenize_chinese_chars"),
        **{
            name: Followed("normalization of BertTokenizer: part of the pack's tokenizer.json")
            for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
        },
        "model_max_length": Followed("maximum length, if sentence_bert_config.json has none"),
        "max_len": Followed("maximum length, in older files"),
        "truncation_side": Followed("part of the pack's tokenizer.json"),
        **{
            name: Followed("refused if tokenizer.json does otherwise")
            for name in ("add_bos_token", "add_eos_token", "add_prefix_space")
        },
        "auto_map": Checked("code that is no tokenizer", own_tokenizer),
        "split_special_tokens": Only((False, None), "special tokens of prompts are parsed; remove the key"),
        "clean_text": Only((True, None), "save the tokenizer again"),
        "fix_mistral_regex": Only((False, None), "save tokenizer.json with the other expression"),
        "fast_tokenizer_files": Only((["tokenizer.json"], [], None), "keep one tokenizer.json"),
        "init_inputs": Only(([], None), "save the tokenizer again"),
        **no_effect("a record, or an option of tokenizers without tokenizer.json", RECORDS.split()),
        **no_effect("of decoding tokens to text", DECODING.split()),
        **no_effect("a template is not applied; a model that needs one is refused (modality_config)", CHAT.split()),
        **no_effect("form of the output: a pack pads on the right, and no vector depends on it", FORM.split()),
    },
)
SPECIAL_TOKENS_MAP = KeyTable("special_tokens_map.json", NAMED_TOKENS)
TOKENIZER_JSON = KeyTable(
    "tokenizer.json",
    {
        **{name: Followed("as the tokenizers library reads it") for name in ("normalizer", "pre_tokenizer")},
        "model": Followed("as the tokenizers library reads it; a dropout is refused"),
        "post_processor": Followed("as the tokenizers library reads it; token types other than 0 are refused"),
        "added_tokens": Followed("special ones are parsed in prompts alone, others in texts too"),
        "truncation": Followed("direction; the pack's copy has the pack's length"),
        "padding": Followed("padding token, if no other file names one; the pack's copy pads as the pack does"),
        "decoder": NoEffect("of decoding tokens to text"),
        "version": NoEffect("version of the format"),
    },
)
