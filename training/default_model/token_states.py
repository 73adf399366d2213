"""Token states in float16, computed once: the projector trains on them without running the model again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.default_model.encoder import Encoder, States, batches, by_length


@dataclass(frozen=True)
class TokenStates:
    """Token states of texts: a float16 tensor [tokens, 384] for each."""

    rows: list[Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: Encoder, texts: Sequence[str]) -> TokenStates:
        """Run the model over the texts."""
        rows = []
        order = by_length(texts)
        for batch in batches([texts[index] for index in order]):
            rows += [row.half() for row in encoder.states(batch).rows()]
        positions = sorted(range(len(order)), key=order.__getitem__)
        return cls([rows[position] for position in positions])

    def batch(self, indices: Sequence[int]) -> States:
        """Float32 states of some texts, padded to the longest."""
        return States.padded([self.rows[index].float() for index in indices])

    def means(self) -> Tensor:
        """Single vectors [texts, 384], not normalized."""
        return torch.stack([row.float().mean(0) for row in self.rows])
