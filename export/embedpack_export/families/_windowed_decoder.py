"""Configuration of decoders with sliding windows in some layers (Qwen2, Qwen3); no family of its own."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.families._decoder import KEYS as DECODER_KEYS
from embedpack_export.families._decoder import DecoderConfig
from embedpack_export.sources.key_rules import Followed

LayerType = Literal["full_attention", "sliding_attention"]
# The kernel counts in 32 bits.
WindowLength = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
# Where config.json has none, as in transformers.
MAX_WINDOW_LAYERS = 28

KEYS = {
    **DECODER_KEYS,
    "use_sliding_window": Followed("windows of attention in the layers of layer_types, or from max_window_layers on"),
    "sliding_window": Followed("number of last tokens that a token attends to, with use_sliding_window"),
    "max_window_layers": Followed("first layer with a window, without layer_types"),
    "layer_types": Followed("layers with a window: sliding_attention, others: full_attention"),
}


class WindowedDecoderConfig(DecoderConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on."""

    use_sliding_window: bool | None = None
    sliding_window: WindowLength | None = 4096
    max_window_layers: Annotated[int, msgspec.Meta(ge=0)] | None = None
    layer_types: tuple[LayerType, ...] | None = None

    def windows(self) -> tuple[int | None, ...]:
        """Window of each layer in tokens, the token itself included; None: attention to all earlier tokens.

        Raises:
            CheckpointError: the keys contradict each other.
        """
        window = self.sliding_window if self.use_sliding_window else None
        by_index = tuple(self._type(index, window) for index in range(self.num_hidden_layers))
        types = by_index if self.layer_types is None else self.layer_types
        if self.max_window_layers is not None and "sliding_attention" in by_index and types != by_index:
            raise CheckpointError(
                f"config.json: max_window_layers is {self.max_window_layers}, layer_types has sliding_attention in "
                "other layers; remove max_window_layers if layer_types is right"
            )
        return windows_by_type(types, window, self)

    def _type(self, index: int, window: int | None) -> LayerType:
        first = MAX_WINDOW_LAYERS if self.max_window_layers is None else self.max_window_layers
        return "full_attention" if window is None or index < first else "sliding_attention"


def windows_by_type(types: tuple[LayerType, ...], window: int | None, config: DecoderConfig) -> tuple[int | None, ...]:
    """Window of each layer from its type; raises CheckpointError if there are not as many, or no window."""
    if len(types) != config.num_hidden_layers:
        raise CheckpointError(
            f"config.json: layer_types has {len(types)} layers, num_hidden_layers is {config.num_hidden_layers}; "
            "restore the config.json of the model"
        )
    if window is None and "sliding_attention" in types:
        raise CheckpointError(
            "config.json: layer_types has sliding_attention, and the other keys give no window (sliding_window, "
            "use_sliding_window); restore the config.json of the model"
        )
    return tuple(window if kind == "sliding_attention" else None for kind in types)
