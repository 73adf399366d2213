"""jina-colbert-v2: the tower of jina-embeddings-v3 without adapters, and a projection for multi-vectors.

The model is that of Jha et al. 2024 (arXiv 2408.16672); its files are those of ColBERT's own code. Its projection was
trained for three sizes (section 3.2), so vectors may be truncated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from embedpack_export.families._encoder import EncoderConfig, Theta
from embedpack_export.families.jina_embeddings_v3 import NAMES, OF_TRANSFORMERS, RULES
from embedpack_export.families.model import Family, Model
from embedpack_export.graph.towers.encoder_shape import EncoderShape, RotaryPositions
from embedpack_export.graph.towers.rotary import RotaryTable
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config
from embedpack_export.sources.colbert_metadata import ARCHITECTURE, is_colbert
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, ENCODERS, SIZES, code_of, sizes
from embedpack_export.sources.key_rules import Followed, KeyTable, Only, no_effect
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

# Dimensions that the projection was trained for, besides all.
TRUNCATIONS = (64, 96)
FUSED = ".mixer.Wqkv.weight"


class JinaColbertConfig(EncoderConfig, frozen=True, kw_only=True):
    """Fields of config.json that the graph depends on; unsupported values are refused."""

    type_vocab_size: Size = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    position_embedding_type: Literal["rotary"]
    # The default of the model's code.
    rotary_emb_base: Theta = 10_000.0

    def shape(self) -> EncoderShape:
        """Shape of the tower."""
        table = RotaryTable(self.head_size, self.rotary_emb_base)
        shape = self.plain_shape(self.layer_norm_eps, RotaryPositions((table,) * self.num_hidden_layers))
        return replace(shape, token_types=self.type_vocab_size, names=NAMES)

    def of_class(self) -> dict[str, Any]:
        """The configuration of transformers' class."""
        names = (*SIZES.split(), "type_vocab_size", "pad_token_id", "layer_norm_eps")
        rope = {"rope_type": "default", "rope_theta": self.rotary_emb_base}
        values = {name: getattr(self, name) for name in names}
        return {"model_type": OF_TRANSFORMERS, "architectures": [ARCHITECTURE], **values, "rope_parameters": rope}


KEYS = KeyTable(
    "config.json (jina_colbert_v2)",
    {
        **ENCODERS,
        **sizes("type_vocab_size"),
        "hidden_act": Only(("gelu",), ANOTHER_CHECKPOINT),
        "layer_norm_eps": Followed("epsilon of the layer norms"),
        "position_embedding_type": Only(("rotary",), ANOTHER_CHECKPOINT),
        "rotary_emb_base": Followed("base of the rotary positions; 10000 without it"),
        "emb_pooler": Only((None,), "the model has no single vectors; export a checkpoint without it"),
        "auto_map": code_of("XLMRobertaFlashConfig", "XLMRobertaModel"),
        **no_effect("of single vectors, which the model has not", ("matryoshka_dimensions", "truncate_dim")),
        **no_effect(
            "of adapters, which the checkpoint has not",
            (
                "lora_adaptations", "lora_alpha", "lora_dropout_p", "lora_main_params_trainable", "lora_rank",
                "load_trained_adapters", "task_instructions",
            ),
        ),
        **no_effect("of how the model is run", ("use_flash_attn", "use_reentrant")),
    },
)  # fmt: skip


def claims(checkpoint: Checkpoint) -> bool:
    """True for ColBERT's own layout on the tower of jina-embeddings-v3, by the names of its tensors."""
    return is_colbert(checkpoint) and any(name.endswith(FUSED) for name in checkpoint.tensors)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint."""
    config = parse_config(checkpoint, JinaColbertConfig, KEYS)
    model = config.model(config.shape(), RULES, FamilyTokenizer("XLMRobertaTokenizer"))
    return replace(model, truncate_dims=TRUNCATIONS, config_of_class=config.of_class())


FAMILY = Family("jina_colbert_v2", claims, read, (KEYS,))
