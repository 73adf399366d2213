"""What training and evaluation share: read the model and turn texts into vectors exactly as the pack will."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

TASK = "retrieval"
BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
MATRYOSHKA_DIMS = (32, 64, 128, 256, 384)
CHUNK = 16  # texts that run through the model together
THREADS = 2  # fixed, because the order of float additions depends on it


@dataclass(frozen=True)
class Prompts:
    """Text put before each input; the two sides of a search are told apart by it."""

    query: str
    passage: str


PROMPTS = Prompts(query="Query: ", passage="Passage: ")
NO_PROMPTS = Prompts(query="", passage="")


@dataclass(frozen=True)
class Encoder:
    """A model with its tokenizer; vectors are the mean over all tokens, not normalized yet."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Vectors in the order of the texts; those of like length run together, to waste little on padding."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        groups = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
        vectors = torch.cat([self.together([texts[index] for index in group]) for group in groups])
        places = torch.empty(len(order), dtype=torch.int64)
        places[order] = torch.arange(len(order))
        return vectors[places]

    def together(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts that are padded to the longest of them."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        states = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean: Tensor = (states * mask).sum(1) / mask.sum(1)
        return mean

    def without_adapter(self) -> AbstractContextManager[None]:
        """A scope in which the bare backbone answers."""
        return self.model.disable_adapter() if isinstance(self.model, PeftModel) else nullcontext()


def load_backbone(folder: Path, max_tokens: int) -> Encoder:
    """The float32 backbone; eval mode also in training, since dropout would blur what the adapter learns from."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    return Encoder(model, AutoTokenizer.from_pretrained(folder), max_tokens)


def load_adapter(encoder: Encoder, folder: Path) -> Encoder:
    """The backbone with the trained adapter; peft does not expect a task in the keys, so it is taken out."""
    tensors = load_file(folder / "adapter_model.safetensors")
    plain = {name.replace(f".{TASK}.weight", ".weight"): tensor for name, tensor in tensors.items()}
    config = LoraConfig.from_pretrained(str(folder))
    config.base_model_name_or_path = encoder.model.name_or_path  # the published name; peft warns of a local folder
    model = get_peft_model(encoder.model, config, adapter_name=TASK)
    if plain.keys() != get_peft_model_state_dict(model, adapter_name=TASK).keys():
        raise SystemExit(f"{folder}: the adapter's keys do not fit the backbone; was it trained on another model?")
    set_peft_model_state_dict(model, plain, adapter_name=TASK)
    return Encoder(model.eval(), encoder.tokenizer, encoder.max_tokens)


@torch.no_grad()
def encode(encoder: Encoder, texts: Sequence[str], prompt: str) -> Tensor:
    """Vectors of many texts, for measuring."""
    return encoder([prompt + text for text in texts])


def scores(queries: Tensor, passages: Tensor, dimensions: int) -> Tensor:
    """Cosines of the first `dimensions` values, normalized after the cut."""
    return normalize(queries[:, :dimensions], dim=-1) @ normalize(passages[:, :dimensions], dim=-1).T


def ndcg_at_10(similarity: Tensor, relevant: Sequence[set[int]]) -> Tensor:
    """nDCG@10 of every query; `relevant` holds the passages that answer it, all equally good."""
    discounts = 1 / torch.log2(torch.arange(2, 12, dtype=torch.float64))
    best = similarity.topk(min(10, similarity.shape[1]), dim=1).indices.tolist()
    found = []
    for ranking, answers in zip(best, relevant, strict=True):
        gain = sum(discounts[rank].item() for rank, passage in enumerate(ranking) if passage in answers)
        found.append(gain / discounts[: min(10, len(answers))].sum().item())
    return torch.tensor(found, dtype=torch.float64)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl.gz file; only a newline ends a line, since texts may hold other separators."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        return [json.loads(line) for line in stream]
