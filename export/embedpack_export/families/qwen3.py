"""Qwen3: a causal decoder with a norm for each head of queries and keys (Qwen3-Embedding, Qwen3-Reranker)."""

from __future__ import annotations

from dataclasses import replace

from embedpack_export.families._windowed_decoder import KEYS as DECODER_KEYS
from embedpack_export.families._windowed_decoder import WindowedDecoderConfig
from embedpack_export.families.model import Family, Model, PairPrompt, by_model_type
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT
from embedpack_export.sources.key_rules import KeyTable, Only

# Class and first layer of the listwise rerankers, which are families of their own.
LISTWISE, PROJECTOR = "JinaForRanking", "projector.0"


class Qwen3Config(WindowedDecoderConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on."""

    num_key_value_heads: Size
    head_dim: Size | None = 128


# Of the model card of Qwen3-Reranker, and of the chat template in its files.
PAIR_PROMPT = PairPrompt(
    before=(
        "<|im_start|>system\nJudge"
        + " whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    ),
    instruction="<Instruct>: ",
    query="\n<Query>: ",
    document="\n<Document>: ",
    after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    marks=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    default_instruction="Given a web search query, retrieve relevant passages that answer the query",
)
KEYS = KeyTable("config.json (qwen3)", {**DECODER_KEYS, "attention_bias": Only((False, None), ANOTHER_CHECKPOINT)})


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a Qwen3 checkpoint."""
    config = parse_config(checkpoint, Qwen3Config, KEYS)
    model = config.model(config.shape(qk_norm=True, windows=config.windows()))
    return replace(model, pair_prompt=PAIR_PROMPT)


def is_listwise(checkpoint: Checkpoint) -> bool:
    """True for the class of Jina's listwise rerankers, which has a projector next to the tower."""
    architectures, is_qwen3 = checkpoint.config.get("architectures"), by_model_type("qwen3")(checkpoint)
    named = isinstance(architectures, list) and LISTWISE in architectures
    return is_qwen3 and (named or f"{PROJECTOR}.weight" in checkpoint.tensors)


def claims(checkpoint: Checkpoint) -> bool:
    """True for Qwen3 without that projector."""
    return by_model_type("qwen3")(checkpoint) and not is_listwise(checkpoint)


FAMILY = Family("qwen3", claims, read, (KEYS,))
