"""torch with transformers, in float32 or bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel

from benchmarks.peers.job import PeerJob, PeerModel, PeerVectors, Rows
from benchmarks.peers.pooled import padded, pooled

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_model(job: PeerJob) -> PeerModel:
    """Load the checkpoint, with the default attention of transformers (sdpa)."""
    torch.set_num_threads(job.threads)
    model = load(job.source.checkpoint, job.format)

    def run(rows: Rows) -> PeerVectors:
        ids, mask = padded(rows, job.source.pad_token_id)
        with torch.inference_mode():
            states = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return pooled(states.last_hidden_state.float().numpy(), mask, job.source.pooling)

    return PeerModel.of_ids(run)


def load(checkpoint: str, dtype: str, attention: str | None = None) -> Any:
    """Load the backbone in eval mode, without the cache of a decoder; `attention` is the name of an implementation."""
    model = AutoModel.from_pretrained(
        checkpoint, dtype=DTYPES[dtype], local_files_only=True, attn_implementation=attention
    ).eval()
    model.config.use_cache = False
    return model


class HiddenStates(torch.nn.Module):
    """Float32 backbone whose only output is the last hidden states, for conversions."""

    def __init__(self, checkpoint: str, attention: str | None = None) -> None:
        super().__init__()
        self.model = load(checkpoint, "fp32", attention)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
