"""Token ids of texts under prompts with rules, put together without the rules of the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpack.inputs.prompt_rules import PromptOrPrefix, as_prompt
from embedpack.pack.input_recipes import Prompt
from embedpack_export.reference.torch.own_reading import TextIds


@dataclass(frozen=True)
class PromptedIds:
    """Token ids of a text under a prompt, int64 [length].

    Attributes:
        ids: token ids, marker and fill included.
        attended: number of tokens, from the first, that are attended to.
        kept: tokens whose vectors are part of the multi-vector, bool [length].
    """

    ids: npt.NDArray[np.int64]
    attended: int
    kept: npt.NDArray[np.bool_]


def prompted_ids(read: TextIds, texts: Sequence[str], prompt: PromptOrPrefix) -> list[PromptedIds]:
    """Token ids of each text as ColBERT reads it: marker behind the first token, then the fill."""
    known = as_prompt(prompt)
    limit = min(known.max_tokens or read.max_tokens, read.max_tokens) - (known.marker is not None)
    return [_with_rules(ids, known) for ids in read(texts, known.prefix, limit)]


def _with_rules(ids: npt.NDArray[np.int64], prompt: Prompt) -> PromptedIds:
    tokens = ids.tolist()
    if prompt.marker is not None:
        tokens = [tokens[0], prompt.marker, *tokens[1:]]
    attended = len(tokens)
    if prompt.fill is not None:
        tokens += [prompt.fill.token] * (prompt.fill.length - len(tokens))
        attended = len(tokens) if prompt.fill.attended else attended
    kept = np.array([token not in prompt.skip for token in tokens], np.bool_)
    return PromptedIds(np.array(tokens, np.int64), attended, kept)
