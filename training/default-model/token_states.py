"""Token states of many texts, kept in float16: the projector learns from them without running the model again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from encoder import Encoder, States, by_length, chunks
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class TokenStates:
    """One float16 tensor [tokens, 384] for each text."""

    rows: list[Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: Encoder, texts: Sequence[str]) -> TokenStates:
        """Run the model once over the texts."""
        rows = []
        order = by_length(texts)
        for group in chunks([texts[index] for index in order]):
            states = encoder.together(group)
            lengths = states.mask.sum(1).tolist()
            rows += [one[:length].half() for one, length in zip(states.values, lengths, strict=True)]
        places = sorted(range(len(order)), key=order.__getitem__)
        return cls([rows[place] for place in places])

    def batch(self, places: Sequence[int]) -> States:
        """Float32 states of some texts, padded to the longest."""
        rows = [self.rows[place] for place in places]
        masks = [torch.ones(len(row), dtype=torch.int64) for row in rows]
        return States(pad_sequence(rows, batch_first=True).float(), pad_sequence(masks, batch_first=True))

    def means(self) -> Tensor:
        """Single vectors [texts, 384], not normalized."""
        return torch.stack([row.float().mean(0) for row in self.rows])
