"""Token states in float16, computed once: the projector trains on them without running the model again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
            states = encoder.states(batch)
            lengths = states.mask.sum(1).tolist()
            rows += [values[:length].half() for values, length in zip(states.values, lengths, strict=True)]
        positions = sorted(range(len(order)), key=order.__getitem__)
        return cls([rows[position] for position in positions])

    def batch(self, indices: Sequence[int]) -> States:
        """Float32 states of some texts, padded to the longest."""
        rows = [self.rows[index] for index in indices]
        masks = [torch.ones(len(row), dtype=torch.int64) for row in rows]
        return States(pad_sequence(rows, batch_first=True).float(), pad_sequence(masks, batch_first=True))

    def means(self) -> Tensor:
        """Single vectors [texts, 384], not normalized."""
        return torch.stack([row.float().mean(0) for row in self.rows])
