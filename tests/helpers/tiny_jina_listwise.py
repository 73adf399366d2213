"""jina-reranker-v3 in its published layout at toy size: files, keys of config.json, names of tensors, tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.tiny_decoder import make_tensors

HIDDEN, PROJECTED = 32, 512
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|score_token|>", "<|embed_token|>", "<|rerank_token|>"
)  # fmt: skip
# Added, but not special: they are parsed in any text.
PLAIN = ("<tool_call>", "<think>", "</think>")
# Of Qwen2's tokenizer.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONFIG: dict[str, Any] = {
    "_name_or_path": "jinaai/jina-reranker-v3",
    "architectures": ["JinaForRanking"],
    "auto_map": {"AutoModel": "modeling.JinaForRanking"},
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 131072,
    "max_window_layers": 2,
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.55.2",
    "use_cache": False,
    "use_sliding_window": False,
}
SYSTEM = (
    "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the passages based on how "
    "relevant they are to the query. If the query is a question, how relevant a passage is depends on how well it "
    "answers the question. If not, try to analyze the intent of the query and assess how well each passage satisfies "
    "the intent. If an instruction is provided, you should follow the instruction when determining the ranking."
    "<|im_end|>\n"
)
END = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def literal(query: str, documents: Sequence[str]) -> str:
    """Prompt of a block as the published code writes it."""
    passages = "\n".join(
        f'<passage id="{row}">\n{document}<|embed_token|>\n</passage>' for row, document in enumerate(documents)
    )
    return (
        f"{SYSTEM}<|im_start|>user\nI will provide you with {len(documents)} passages, each indicated by a numerical "
        f"identifier. Rank the passages based on their relevance to query: {query}\n{passages}\n<query>\n{query}"
        f"<|rerank_token|>\n</query>{END}"
    )


def literal_v3_5(query: str, documents: Sequence[str]) -> str:
    """The same of jina-reranker-v3.5."""
    of_v3 = literal(query, documents)
    return of_v3.replace(f"to query: {query}\n", f"to query: {query}<|rerank_token|>\n", 1).replace(
        f"</query>{END}",
        "</query>\nPlease provide the ranking of all passages based on their relevance to the search query, in "
        "descending order of relevance, with each label enclosed in square brackets (e.g., [2] > [1] > [3] > [0])."
        f"{END}",
    )


def make_tokenizer(prompt: str, special: Sequence[str], plain: Sequence[str]) -> Tokenizer:
    """Bytes and the words of a prompt, split as Qwen2's tokenizer splits, with the added tokens behind them."""
    splitting = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys(word for word, _ in splitting.pre_tokenize_str(prompt))
    merges = dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word)))
    ids = {token: number for number, token in enumerate(dict.fromkeys([*alphabet, *map("".join, merges)]))}
    tokenizer = Tokenizer(models.BPE(ids, [*merges]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitting
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([*special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    return tokenizer


def make_listwise(folder: Path, *, max_length: int = 131072, seed: int = 7, **changes: object) -> Path:
    """Write a checkpoint; `changes` replace values of config.json, None takes one out."""
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(literal("the cat", [" sleeps on", "a"]), SPECIAL, PLAIN)
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab_size() + 5
    ids = {token: tokenizer.token_to_id(token) for token in (*SPECIAL, *PLAIN)}
    made: dict[str, Any] = {**CONFIG, "bos_token_id": ids[SPECIAL[0]], "eos_token_id": ids["<|im_end|>"]}
    config = {**made, "vocab_size": vocabulary, **changes}
    removed = {name for name, value in changes.items() if value is None}
    config = {name: value for name, value in config.items() if name not in removed}
    write_safetensors(folder / "model.safetensors", tensors_of(config, seed), {"format": "pt"})
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    settings = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(number): {"content": token, **flags, "special": token in SPECIAL} for token, number in ids.items()
        },
        "additional_special_tokens": [*SPECIAL[3:]],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "extra_special_tokens": {},
        "model_max_length": max_length,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA toy.\n")
    return folder


def tensors_of(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """All tensors, with the projector."""
    rng = np.random.default_rng(seed + 1)
    shapes = {"projector.0.weight": (HIDDEN // 2, HIDDEN), "projector.2.weight": (PROJECTED, HIDDEN // 2)}
    heads = {name: (rng.standard_normal(shape) / shape[1] ** 0.5).astype(np.float32) for name, shape in shapes.items()}
    return make_tensors(config, seed) | heads


def make_listwise_v3_5(folder: Path, *, max_length: int = 131072, window: int = 8) -> Path:
    """Write a checkpoint of jina-reranker-v3.5, whose first two of three layers have a window."""
    layers = ["sliding_attention", "sliding_attention", "full_attention"]
    return make_listwise(
        folder,
        max_length=max_length,
        _name_or_path="jinaai/jina-reranker-v3.5",
        layer_types=layers,
        num_hidden_layers=len(layers),
        max_window_layers=None,
        sliding_window=window,
        use_sliding_window=True,
    )
