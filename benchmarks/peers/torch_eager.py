"""torch with transformers, in float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModel

from benchmarks.peers.job import Inputs, PeerJob, Vectors
from benchmarks.peers.pooled import in_fixed_batches, padded, pooled

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TorchModel:
    """Model that pools the hidden states of token ids."""

    model: Any
    pooling: str
    pad_token_id: int

    def batch(self, inputs: Inputs) -> Vectors:
        return self._run(inputs.ids)

    def corpus(self, inputs: Inputs) -> Vectors:
        return in_fixed_batches(inputs.ids, self._run)

    def _run(self, rows: Sequence[Sequence[int]]) -> Vectors:
        ids, mask = padded(rows, self.pad_token_id)
        with torch.inference_mode():
            states = self.model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return pooled(states.last_hidden_state.float().numpy(), mask, self.pooling)


def open_model(job: PeerJob) -> TorchModel:
    """Load the checkpoint, with the default attention of transformers (sdpa)."""
    torch.set_num_threads(job.threads)
    return TorchModel(load(job.source.checkpoint, job.format), job.source.pooling, job.source.pad_token_id)


def load(checkpoint: str, dtype: str) -> Any:
    """Load the backbone in eval mode, without the cache of a decoder."""
    model = AutoModel.from_pretrained(checkpoint, dtype=DTYPES[dtype], local_files_only=True).eval()
    model.config.use_cache = False
    return model


class HiddenStates(torch.nn.Module):
    """Float32 backbone whose only output is the last hidden states, for conversions."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.model = load(checkpoint, "fp32")

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
