"""jina-code-embeddings in its layout at toy size: Qwen2, last token, ten prompts in one task, truncations."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import processors

from tests.helpers.tiny_decoder import make_decoder, make_tokenizer

CODE = "Candidate code snippet:\n"
PROMPTS = {
    "nl2code_query": "Find the most relevant code snippet given the following query:\n",
    "nl2code_document": CODE,
    "qa_query": "Find the most relevant answer given the following question:\n",
    "qa_document": "Candidate answer:\n",
    "code2code_query": "Find an equivalent code snippet given the following code snippet:\n",
    "code2code_document": CODE,
    "code2nl_query": "Find the most relevant comment given the following code snippet:\n",
    "code2nl_document": "Candidate comment:\n",
    "code2completion_query": "Find the most relevant completion given the following start of code snippet:\n",
    "code2completion_document": "Candidate completion:\n",
}
HIDDEN = 96
TRUNCATIONS = (32, 64)


def make_jina_code(folder: Path, *, end: bool = False) -> Path:
    """Write a checkpoint; `end`: its tokenizer puts a token after a text."""
    make_decoder(
        folder,
        "qwen2",
        hidden_size=HIDDEN,
        num_attention_heads=6,
        attention_dropout=0.0,
        bos_token_id=0,
        max_window_layers=3,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        use_cache=True,
        matryoshka_dims=list(TRUNCATIONS),
    )
    tokenizer = make_tokenizer("qwen2")
    if not end:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    package = "sentence_transformers.models"
    (folder / "1_Pooling").mkdir()
    files: dict[str, object] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{package}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{package}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{package}.Normalize"},
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": HIDDEN,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_lasttoken": True,
            "include_prompt": True,
        },
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "5.0.0", "transformers": "4.53.0", "pytorch": "2.7.1"},
            "prompts": PROMPTS,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "tokenizer_config.json": {
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|endoftext|>",
            "errors": "replace",
            "model_max_length": 32768,
            "pad_token": "<|endoftext|>",
            # Padding does not decide vectors: positions count from the first token of the text.
            "padding_side": "left",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    return folder
