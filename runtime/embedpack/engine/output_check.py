"""Check of the arrays that graphs return; `embedpack.pack.graph_io` defines their shapes and dtypes.

onnxruntime does not compare them with the graph. An array of another shape could be taken for that of other inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedpack.engine.session import Array
from embedpack.errors import PackError
from embedpack.pack.graph_io import CHUNK_SUMS, MARK_VECTORS, SCORE, TOKEN_EMBEDDINGS, binary_output, int8_output
from embedpack.pack.manifest import Manifest

INT8, BINARY = int8_output(""), binary_output("")


@dataclass(frozen=True)
class OutputCheck:
    """Dimensions of the outputs of a pack; None: it has no such head."""

    single: int | None
    multi: int | None

    @classmethod
    def of(cls, manifest: Manifest) -> OutputCheck:
        """Dimensions in a manifest."""
        single, multi = manifest.single, manifest.multi
        return cls(None if single is None else single.dimensions, None if multi is None else multi.dimensions)

    def check(self, output: str, values: Array, inputs: int, tokens: int, parts: int = 0) -> None:
        """Raise PackError unless an output of a batch has its shape and dtype.

        The batch has `inputs`, padded to `tokens`, with at most `parts` chunks or marks each.
        """
        if output == SCORE:
            check_array(output, values, [inputs], np.float32)
            return
        if output == MARK_VECTORS:
            # The manifest has no dimensions of these vectors, which scores are made of.
            check_array(output, values, [inputs * parts, values.shape[1] if values.ndim == 2 else 1], np.float32)
            return
        if output == CHUNK_SUMS:
            assert self.single is not None
            check_array(output, values, [inputs, parts, self.single], np.float32)
            return
        of_tokens = output.startswith(TOKEN_EMBEDDINGS)
        rows, dimensions = ([inputs, tokens], self.multi) if of_tokens else ([inputs], self.single)
        assert dimensions is not None, output
        if output.endswith(BINARY):
            check_array(output, values, [*rows, dimensions // 8], np.uint8)
        else:
            check_array(output, values, [*rows, dimensions], np.int8 if output.endswith(INT8) else np.float32)


def check_array(output: str, values: Array, shape: Sequence[int], dtype: type[np.generic]) -> None:
    """Raise PackError unless an output has this shape and dtype."""
    if list(values.shape) != list(shape) or values.dtype != dtype:
        raise PackError(
            f"the graph's {output} is {values.dtype} {list(values.shape)}, expected {np.dtype(dtype)} {list(shape)}; "
            "do not use this pack"
        )
