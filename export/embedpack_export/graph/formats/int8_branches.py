"""A quantized activation as the input of branches: its products with factors A that are inputs of the graph, in int8.

The integers of the activation are those of the backbone's product, so a branch does not read the activation in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from embedpack.pack.graph_io import lora_inputs
from embedpack.vectors.arrays import Float32
from embedpack_export.graph.builder import CONTRIB, GraphBuilder
from embedpack_export.graph.context import Array, add_all
from embedpack_export.quantization.integers import paired_scales, within_pairs

# Suffixes of the names of inputs: integers [channels, rank] and scales [rank] of each block of channels; of all blocks
# the factors of their centers [blocks, rank], and the product of A and the shift [rank].
INTEGERS, SCALES, CENTERS, SHIFT = "int8", "scales", "centers", "shift"


@dataclass(frozen=True)
class QuantizedBlock:
    """A quantized block of an activation's channels: (values - zero) * scale * row_scale + center of the row."""

    channels: npt.NDArray[np.intp]
    values: ir.Value  # u8 values
    row_scale: ir.Value | None  # scale of each row; None: the scale is static
    scale: ir.Value  # static scale, 1 if there is one of each row
    zero: ir.Value
    # Channels that follow the others, twice each: once more, and with the opposite sign.
    repeated: tuple[int, ...] = ()

    def rows(self, integers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Integers of weights for the values of the block, [values, n], from those of all channels [k, n]."""
        again = integers[list(self.repeated)]
        pairs = np.stack([again, -again], axis=1).reshape(-1, integers.shape[1])
        return np.concatenate([integers[self.channels], pairs])


@dataclass(frozen=True)
class Int8BranchInput:
    """See `BranchInput`: the blocks of (x - shift) / divisors."""

    blocks: Sequence[QuantizedBlock]
    centers: ir.Value | None  # center of each row in each block [..., blocks]; None: all are 0
    # Shift and divisor of each channel, float32 [k].
    shift: Float32
    divisors: Float32

    def narrow(self, g: GraphBuilder, module: str) -> ir.Value:
        """See `BranchInput`."""
        rank, (factor, _) = f"{module}.rank", lora_inputs(module)
        terms = [self._block_product(g, block, f"{factor}.{index}", rank) for index, block in enumerate(self.blocks)]
        if self.centers is not None:
            count = len(self.blocks)
            sums = g.optional_input(f"{factor}.{CENTERS}", (count, rank), np.zeros((count, 0), np.float32))
            terms.append(g.op("MatMul", [self.centers, sums]))
        if self.shift.any():
            terms.append(g.optional_input(f"{factor}.{SHIFT}", (rank,), np.zeros(0, np.float32)))
        return add_all(g, terms)

    def _block_product(self, g: GraphBuilder, block: QuantizedBlock, name: str, rank: str) -> ir.Value:
        channels = len(block.channels) + 2 * len(block.repeated)
        integers = g.optional_input(f"{name}.{INTEGERS}", (channels, rank), np.zeros((channels, 0), np.int8))
        scales = g.optional_input(f"{name}.{SCALES}", (rank,), np.zeros(0, np.float32))
        inputs = [block.values, integers, block.scale, scales, block.zero]
        product = g.op("MatMulIntegerToFloat", inputs, domain=CONTRIB)
        return product if block.row_scale is None else g.op("Mul", [product, block.row_scale])

    def factor(self, module: str, down: Float32) -> dict[str, Array]:
        """See `BranchInput`."""
        name, scaled = lora_inputs(module)[0], down * self.divisors
        inputs: dict[str, Array] = {}
        sums = []
        channels = scaled.shape[1]
        for index, block in enumerate(self.blocks):
            columns = scaled[:, block.channels]
            scales = paired_scales(columns)
            integers = within_pairs(np.clip(np.rint(columns / scales[:, None]), -127, 127))
            whole = np.zeros((channels, len(integers)), np.int8)
            whole[block.channels] = integers.T
            inputs[f"{name}.{index}.{INTEGERS}"] = block.rows(whole)
            inputs[f"{name}.{index}.{SCALES}"] = scales
            if self.centers is not None:
                sums.append(integers.sum(axis=1) * scales)
        if sums:
            inputs[f"{name}.{CENTERS}"] = np.stack(sums).astype(np.float32)
        if self.shift.any():
            inputs[f"{name}.{SHIFT}"] = down @ self.shift
        return inputs
