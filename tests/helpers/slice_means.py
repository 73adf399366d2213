"""Late chunking as its paper defines it: means of slices of the hidden states of one text, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

Float64 = npt.NDArray[np.float64]
# Hidden states [tokens, hidden] of token ids.
HiddenStates = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def chunk_of_tokens(encoding: Encoding, prompt: str, chunks: Sequence[str]) -> list[int]:
    """Chunk of each token of `prompt` + the chunks joined by spaces; those around the text are of the outer chunks."""
    of_characters = [0] * len(prompt)
    for number, chunk in enumerate(chunks):
        of_characters += [number] * (len(chunk) + (number > 0))
    found: list[int] = []
    for (_, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        found.append((found[-1] if found else 0) if special else of_characters[end - 1])
    return found


def slice_means(states: npt.NDArray[np.float32], owners: Sequence[int]) -> Float64:
    """Unit vectors of the mean of each chunk's tokens."""
    wide, rows = states.astype(np.float64), np.asarray(owners)
    means = np.stack([wide[rows == number].mean(0) for number in range(rows.max() + 1)])
    unit: Float64 = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def states_in_windows(hidden: HiddenStates, ids: Sequence[int], body: range, limit: int) -> npt.NDArray[np.float32]:
    """Hidden states of a long text: each token's from the window in which it has more context on its shorter side.

    Tokens around `body` stand in every window; those in front count in the first, those behind in the last.
    """
    before, after = ids[: body.start], ids[body.stop :]
    room = limit - len(before) - len(after)
    step, last = room - min(512, room // 4), body.stop - room
    starts = [body.start]
    while starts[-1] < last:
        starts.append(min(starts[-1] + step, last))
    states = [hidden(np.array([*before, *ids[start : start + room], *after], np.int64)) for start in starts]
    rows = list(states[0][: len(before)])
    for token in body:
        windows = [number for number, start in enumerate(starts) if start <= token < start + room]
        while len(windows) > 1 and starts[windows[0]] + room - 1 - token <= token - starts[windows[1]]:
            del windows[0]
        rows.append(states[windows[0]][len(before) + token - starts[windows[0]]])
    return np.stack([*rows, *states[-1][len(states[-1]) - len(after) :]])
