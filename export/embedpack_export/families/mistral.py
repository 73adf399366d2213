"""Mistral: Llama's decoder with a sliding window of attention (e5-mistral, Linq-Embed, SFR-Embedding)."""

from __future__ import annotations

from embedpack_export.families._decoder import KEYS as DECODER_KEYS
from embedpack_export.families._decoder import DecoderConfig
from embedpack_export.families._windowed_decoder import LayerType, WindowLength, windows_by_type
from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.key_rules import Followed, KeyTable
from embedpack_export.sources.tokenizer_class import FamilyTokenizer


class MistralConfig(DecoderConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on."""

    num_key_value_heads: Size | None = 8
    sliding_window: WindowLength | None = 4096
    layer_types: tuple[LayerType, ...] | None = None

    def windows(self) -> tuple[int | None, ...]:
        """Window of each layer; without `layer_types` the same in all."""
        kind: LayerType = "full_attention" if self.sliding_window is None else "sliding_attention"
        return windows_by_type(self.layer_types or (kind,) * self.num_hidden_layers, self.sliding_window, self)


KEYS = KeyTable(
    "config.json (mistral)",
    {
        **DECODER_KEYS,
        "sliding_window": Followed("number of last tokens that a token attends to"),
        "layer_types": Followed(
            "layers with the window: sliding_attention (without this key all), others: full_attention"
        ),
    },
)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a Mistral checkpoint."""
    config = parse_config(checkpoint, MistralConfig, KEYS)
    return config.model(config.shape(windows=config.windows()), FamilyTokenizer(fixed=True))


FAMILY = Family("mistral", by_model_type("mistral"), read, (KEYS,))
