"""jina-reranker-m0: Qwen2-VL, which scores a query and a text or an image by the state of a token behind them.

The published code cuts a document to 9,728 of 10,240 tokens, then the end of the whole, which is that of the query, and
appends the id 100.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import msgspec

from embedpack.errors import CheckpointError
from embedpack.inputs.tokenizer import TextRules
from embedpack.pack.input_recipes import PatchSize, WindowSize
from embedpack_export.families.heads import Heads, ScoreHead
from embedpack_export.families.model import Family, FixedPairs, Model, Vision, by_model_type
from embedpack_export.families.qwen2_5_vl import (
    RULES,
    VISION,
    ImageTokens,
    ImageTower,
    TextConfig,
    decoder_shape,
    image_recipe,
)
from embedpack_export.families.qwen2_5_vl_keys import IMAGE_TOKENS, OF_TEXTS
from embedpack_export.graph.towers.decoder import causal_decoder
from embedpack_export.graph.towers.qwen_vision import VisionShape, vision_tower
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config, parse_object
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, COMMON, code_of
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.key_rules import Followed, KeyTable, Only, no_effect

CLASS = "JinaVLForRanking"
# Of the published code, as well as the id behind every pair.
MAX_TOKENS, SCORE_TOKEN = 10_240, 100
PAIRS = FixedPairs("**Document**:\n{document}\n**Query**:\n{query}", reserved=512, offset=-2.65)
KEYS = KeyTable(
    "config.json (jina_reranker_m0)",
    {
        **OF_TEXTS,
        "auto_map": code_of(CLASS),
        "vision_config": Followed("fields of the vision tower"),
        **{name: Followed("tokens around an image") for name in IMAGE_TOKENS},
        **no_effect("of videos", ("video_token_id", "vision_token_id")),
    },
)
VISION_SIZES = """depth embed_dim hidden_size mlp_ratio num_heads patch_size temporal_patch_size spatial_merge_size
in_channels in_chans"""
VISION_KEYS = KeyTable(
    "config.json (jina_reranker_m0): vision_config",
    {
        **COMMON,
        **{name: Followed("shape of the vision tower") for name in VISION_SIZES.split()},
        **no_effect("repeated under another name", ("spatial_patch_size",)),
        "hidden_act": Only(("quick_gelu",), ANOTHER_CHECKPOINT),
    },
)


class VisionConfig(msgspec.Struct, frozen=True):
    """vision_config; `hidden_size` is that of the output."""

    depth: Size
    embed_dim: Size
    hidden_size: Size
    mlp_ratio: Size
    num_heads: Size
    patch_size: PatchSize
    temporal_patch_size: WindowSize
    spatial_merge_size: WindowSize
    in_channels: Literal[3] = 3
    in_chans: Literal[3] = 3


class Config(msgspec.Struct, frozen=True):
    """Fields of config.json that pairs and images depend on."""

    vision_config: dict[str, object]
    image_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    pad_token_id: int | None = None
    bos_token_id: int | None = None


def claims(checkpoint: Checkpoint) -> bool:
    """True for the class of the model, or Qwen2-VL with its head."""
    architectures = checkpoint.config.get("architectures")
    named = isinstance(architectures, list) and CLASS in architectures
    return by_model_type("qwen2_vl")(checkpoint) and (named or "score.0.weight" in checkpoint.tensors)


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint, without its vision tower."""
    config, text = parse_config(checkpoint, Config, KEYS), parse_config(checkpoint, TextConfig, KEYS)
    shape, hidden = decoder_shape(text), text.hidden_size
    layers = (Dense("score.0", hidden, hidden, True, "relu"), Dense("score.2", hidden, 1, True))
    return Model(
        hidden=hidden,
        max_tokens=min(MAX_TOKENS, text.max_position_embeddings),
        pad_token_id=config.bos_token_id if config.pad_token_id is None else config.pad_token_id,
        vocabulary=text.vocab_size,
        rules=RULES,
        text=causal_decoder(shape),
        # The three axes of the positions of texts are equal: ordinary rotary positions.
        text_alone=causal_decoder(replace(shape, sections=(), images=False)),
        heads=Heads(score=ScoreHead("last", layers)),
        text_rules=TextRules(after=(SCORE_TOKEN,)),
        fixed_pairs=PAIRS,
        other_tensors=(VISION,),
    )


def read_vision(checkpoint: Checkpoint) -> Vision:
    """Build the vision tower of a checkpoint."""
    config, text = parse_config(checkpoint, Config, KEYS), parse_config(checkpoint, TextConfig, KEYS)
    vision = parse_object(checkpoint, config.vision_config, VisionConfig, VISION_KEYS, "vision_config")
    if vision.hidden_size != text.hidden_size:
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: the vision tower has {vision.hidden_size} output channels, the "
            f"decoder {text.hidden_size}; are both of one model?"
        )
    shape = VisionShape(
        depth=vision.depth,
        hidden=vision.embed_dim,
        heads=vision.num_heads,
        intermediate=vision.embed_dim * vision.mlp_ratio,
        kernel=(vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size),
        merge=vision.spatial_merge_size,
        window=None,
        full_attention=frozenset(),
        output=vision.hidden_size,
    )
    sides = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
    tokens = ImageTokens((config.vision_start_token_id,), config.image_token_id, (config.vision_end_token_id,))
    recipe = image_recipe(checkpoint.folder, ImageTower(vision.hidden_size, sides, None), tokens)
    return Vision(vision_tower(shape), recipe, VISION)


FAMILY = Family("jina_reranker_m0", claims, read, (KEYS, VISION_KEYS), read_vision)
