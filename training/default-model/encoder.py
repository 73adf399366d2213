"""What every stage shares: the model, and how texts become token states and vectors, exactly as the pack does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
TASKS = ("retrieval", "text-matching", "code")
MATRYOSHKA_DIMS = (32, 64, 128, 256, 384)
CHUNK = 16  # texts that run through the model together


@dataclass(frozen=True)
class Prompts:
    """Text put before each input; the two sides of a search are told apart by it."""

    query: str
    passage: str


PROMPTS = Prompts(query="Query: ", passage="Passage: ")
NO_PROMPTS = Prompts(query="", passage="")


class States(NamedTuple):
    """Last hidden states [texts, tokens, 384] of texts padded to the longest, and which tokens are real."""

    values: Tensor
    mask: Tensor  # int64 [texts, tokens]

    def mean(self) -> Tensor:
        """The mean over all real tokens, not normalized."""
        mask = self.mask.unsqueeze(-1).to(self.values.dtype)
        return (self.values * mask).sum(1) / mask.sum(1)


@dataclass(frozen=True)
class Encoder:
    """A model with its tokenizer; vectors are the mean over all tokens, not normalized yet."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Vectors [texts, 384] in the order of the texts."""
        order = by_length(texts)
        vectors = torch.cat([self.together(group).mean() for group in chunks([texts[index] for index in order])])
        places = torch.empty(len(order), dtype=torch.int64)
        places[order] = torch.arange(len(order))
        return vectors[places]

    def together(self, texts: Sequence[str]) -> States:
        """States of texts that are padded to the longest of them."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return States(self.model(**inputs).last_hidden_state, inputs["attention_mask"])

    def without_adapter(self) -> AbstractContextManager[None]:
        """A scope in which the bare backbone answers."""
        return self.model.disable_adapter() if isinstance(self.model, PeftModel) else nullcontext()


def by_length(texts: Sequence[str]) -> list[int]:
    """Positions in rising length: those of like length run together, to waste little on padding."""
    return sorted(range(len(texts)), key=lambda index: len(texts[index]))


def chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Neighbours that run together."""
    for start in range(0, len(texts), CHUNK):
        yield texts[start : start + CHUNK]


def load_backbone(folder: Path, max_tokens: int) -> Encoder:
    """The float32 backbone; eval mode also in training, since dropout would blur what the adapter learns from."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    return Encoder(model, AutoTokenizer.from_pretrained(folder), max_tokens)


@torch.no_grad()
def encode(encoder: Encoder, texts: Sequence[str], prompt: str) -> Tensor:
    """Vectors of many texts, for measuring."""
    return encoder([prompt + text for text in texts])
