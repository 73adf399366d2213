"""Layout of an image's patches: window order, rotary positions and the order of the tokens, computed from the grid.

The vision graph works on patches in window order (Qwen2.5-VL, arXiv 2502.13923): a window is a square of tokens, a
token a square of patches. `embedpack.inputs.patches` returns patches token by token in row-major order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.inputs.patches import ImagePatches
from embedpack.pack.graph_io import PATCH_POSITIONS, PATCHES, TOKEN_ROWS, WINDOW_MASK, WINDOW_ROWS, WINDOW_SLOTS
from embedpack.pack.input_recipes import QwenImage, SquareImage

Int64 = npt.NDArray[np.int64]


def token_grid(patches: ImagePatches, spec: QwenImage) -> tuple[int, int]:
    """Number of rows and columns of an image's tokens."""
    return patches.grid[0] // spec.merge_size, patches.grid[1] // spec.merge_size


def vision_feeds(patches: ImagePatches, spec: QwenImage | SquareImage) -> dict[str, npt.NDArray[Any]]:
    """Inputs of the vision graph for one image by name, as `embedpack.pack.graph_io` defines them."""
    if isinstance(spec, SquareImage):
        return {PATCHES: patches.rows}
    rows, columns = token_grid(patches, spec)
    positions = _patch_positions(rows, columns, spec.merge_size)
    if spec.window_size is None:
        return {PATCHES: patches.rows, PATCH_POSITIONS: positions[:, None]}
    windows = _windows(rows, columns, spec.window_size)
    tokens = windows[windows >= 0]
    group = spec.merge_size**2
    order = (tokens[:, None] * group + np.arange(group)).reshape(-1)
    filled = np.repeat(windows >= 0, group, axis=1)
    slots = np.flatnonzero(filled)
    window_rows = np.zeros(filled.shape, np.int64)
    window_rows[filled] = np.arange(len(order))
    return {
        PATCHES: patches.rows[order],
        PATCH_POSITIONS: positions[:, order][:, None],
        WINDOW_ROWS: window_rows,
        WINDOW_MASK: filled.astype(np.int32),
        WINDOW_SLOTS: slots.astype(np.int64),
        TOKEN_ROWS: np.argsort(tokens).astype(np.int64),
    }


def token_positions(before: int, grid: tuple[int, int], after: int) -> Int64:
    """Rotary positions (time, row, column) of a text with one image in it (M-RoPE, Qwen2-VL, arXiv 2409.12191).

    All tokens of the image have the time of the first. The text after it continues after the longer side of the image.
    `before` and `after` count text tokens, `grid` rows and columns of image tokens; int64 [3, number of all tokens].
    """
    rows, columns = grid
    front = np.broadcast_to(np.arange(before), (3, before))
    down, across = np.divmod(np.arange(rows * columns), columns)
    image = before + np.stack([np.zeros_like(down), down, across])
    back = np.broadcast_to(before + max(rows, columns) + np.arange(after), (3, after))
    return np.concatenate([front, image, back], axis=1).astype(np.int64)


def _windows(rows: int, columns: int, side: int) -> Int64:
    """Tokens of each window in row-major order, -1 outside of the image, int64 [windows, side * side]."""
    down, across = -(-rows // side), -(-columns // side)
    cells = np.full((down * side, across * side), -1, np.int64)
    cells[:rows, :columns] = np.arange(rows * columns).reshape(rows, columns)
    return cells.reshape(down, side, across, side).swapaxes(1, 2).reshape(down * across, side * side)


def _patch_positions(rows: int, columns: int, merge: int) -> Int64:
    """Row and column of each patch, int64 [2, p], token by token."""
    axes = np.meshgrid(np.arange(rows * merge), np.arange(columns * merge), indexing="ij")
    blocks = np.stack(axes).reshape(2, rows, merge, columns, merge).swapaxes(2, 3)
    return blocks.reshape(2, -1)
