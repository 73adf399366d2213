"""Encoder of the default model: texts to token states and vectors, computed exactly as in a pack."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
TASKS = ("retrieval", "text-matching", "code")
MATRYOSHKA_DIMS = (32, 64, 128, 256, 384)
BATCH = 16  # texts of a forward pass


@dataclass(frozen=True)
class Prompts:
    """Text prefixes of the two sides of a search."""

    query: str
    passage: str


PROMPTS = Prompts(query="Query: ", passage="Passage: ")
NO_PROMPTS = Prompts(query="", passage="")


class States(NamedTuple):
    """Last hidden states of texts padded to the longest.

    Attributes:
        values: float32 [texts, tokens, 384].
        mask: int64 [texts, tokens]; 1 for tokens, 0 for padding.
    """

    values: Tensor
    mask: Tensor

    def mean(self) -> Tensor:
        """Mean over the tokens of each text, [texts, 384], not normalized."""
        mask = self.mask.unsqueeze(-1).to(self.values.dtype)
        return (self.values * mask).sum(1) / mask.sum(1)

    def rows(self) -> list[Tensor]:
        """Values [tokens, 384] of each text, without padding."""
        lengths = self.mask.sum(1).tolist()
        return [values[:length] for values, length in zip(self.values, lengths, strict=True)]

    @classmethod
    def padded(cls, rows: Sequence[Tensor]) -> States:
        """States of texts, padded to the longest."""
        masks = [torch.ones(len(row), dtype=torch.int64) for row in rows]
        return cls(pad_sequence(list(rows), batch_first=True), pad_sequence(masks, batch_first=True))


@dataclass(frozen=True)
class Encoder:
    """A model with its tokenizer; texts are truncated to `max_tokens`."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Mean-pooled vectors [texts, 384] in the order of the texts, not normalized."""
        order = by_length(texts)
        vectors = torch.cat([self.states(batch).mean() for batch in batches([texts[index] for index in order])])
        return vectors[torch.tensor(order).argsort()]

    def states(self, texts: Sequence[str]) -> States:
        """Token states of a batch."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return States(self.model(**inputs).last_hidden_state, inputs["attention_mask"])

    def without_adapter(self) -> AbstractContextManager[None]:
        """Context in which the adapter is switched off."""
        return self.model.disable_adapter() if isinstance(self.model, PeftModel) else nullcontext()


def by_length(texts: Sequence[str]) -> list[int]:
    """Indices of the texts in rising length, which keeps padding in a batch low."""
    return sorted(range(len(texts)), key=lambda index: len(texts[index]))


def batches(texts: Sequence[str]) -> list[Sequence[str]]:
    """Successive texts, BATCH at a time."""
    return [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]


def load_backbone(folder: Path, max_tokens: int) -> Encoder:
    """Load the float32 backbone in eval mode, for training too: dropout would blur the targets of the adapter."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    return Encoder(model, AutoTokenizer.from_pretrained(folder), max_tokens)


@torch.no_grad()
def encode(encoder: Encoder, texts: Sequence[str], prompt: str) -> Tensor:
    """Encode texts with a prompt, without gradients: [texts, 384]."""
    return encoder([prompt + text for text in texts])
