"""jina-clip-v2: texts and images in one space (Koukounas et al. 2024, arXiv 2412.08802).

The text tower is that of jina-embeddings-v3 with one adapter, which is a part of the model: only the prompt of queries
depends on the task. The vision tower is EVA02.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from embedpack.errors import CheckpointError
from embedpack.inputs.tokenizer import TextRules
from embedpack.pack.input_recipes import ImageSize, PatchSize, PositiveChannels, SquareImage
from embedpack_export.families import jina_embeddings_v3 as v3
from embedpack_export.families.heads import Heads, SingleHead
from embedpack_export.families.jina_clip_keys import (
    KEYS,
    PREPROCESSOR_KEYS,
    TEXT_KEYS,
    TEXT_OVERRIDES,
    V3_CONFIG,
    VISION_KEYS,
)
from embedpack_export.families.model import Family, Model, TaskFacts, Vision, by_model_type
from embedpack_export.graph.towers.eva_vision import EvaShape, eva_tower
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config, parse_object, read_json
from embedpack_export.sources.key_rules import check_keys, shown
from embedpack_export.sources.tokenizer_class import FamilyTokenizer

VISION_PREFIX = "vision_model."
VISION = re.compile(rf"^{re.escape(VISION_PREFIX)}")
# Factor of the similarities in training.
LOGIT_SCALE = re.compile("^logit_scale$")
RULES = replace(v3.RULES, prefixes=("text_model.transformer.", *v3.RULES.prefixes), unchanged=VISION)
RESIZES: Mapping[str, Literal["shortest", "exact"]] = {"shortest": "shortest", "squash": "exact"}


class _TextConfig(msgspec.Struct, frozen=True):
    """text_config."""

    embed_dim: Size
    hf_model_config_kwargs: dict[str, Any]
    default_lora_task: str
    pooler_type: str


class _VisionConfig(msgspec.Struct, frozen=True):
    """vision_config."""

    embed_dim: Size
    width: Size
    layers: Size
    head_width: Size
    mlp_ratio: Annotated[float, msgspec.Meta(gt=0, le=100)]
    image_size: ImageSize
    patch_size: PatchSize
    pt_hw_seq_len: Size
    # One value each is supported (`VISION_KEYS`); without the key the model's code takes another one.
    rope_embeddings: bool
    intp_freq: bool
    naive_swiglu: bool
    subln: bool


class _Config(msgspec.Struct, frozen=True):
    """config.json."""

    text_config: dict[str, Any]
    vision_config: dict[str, Any]
    matryoshka_dimensions: tuple[Size, ...]


class _Preprocessor(msgspec.Struct, frozen=True):
    """preprocessor_config.json."""

    size: ImageSize
    mean: tuple[float, float, float]
    std: PositiveChannels
    resize_mode: Literal["shortest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint, without its vision tower."""
    path = checkpoint.folder / "config.json"
    config = parse_config(checkpoint, _Config, KEYS)
    text = parse_object(checkpoint, config.text_config, _TextConfig, TEXT_KEYS, "text_config")
    own = _v3_config(checkpoint, text)
    task, *others = own.lora_adaptations
    if others or text.default_lora_task != task or set(own.task_instructions) != {task}:
        raise CheckpointError(
            f"{path}: the text tower has one adapter that is always on; lora_adaptations are "
            f"{', '.join(own.lora_adaptations)}, default_lora_task is {text.default_lora_task!r}, task_instructions "
            f"has {', '.join(own.task_instructions)}: restore the config.json of the model"
        )
    if text.embed_dim != own.hidden_size:
        raise CheckpointError(
            f"{path}: text_config.embed_dim is {text.embed_dim}, the text tower has {own.hidden_size} channels; are "
            "both of one model?"
        )
    facts = v3.facts_of_task(task, own.task_instructions[task])
    name = facts.space or task
    return replace(
        own.model(own.shape(), RULES, FamilyTokenizer("XLMRobertaTokenizer")),
        truncate_dims=config.matryoshka_dimensions,
        heads=Heads(SingleHead("mean")),
        text_rules=TextRules(strip=True),
        # Calls without a prompt are documents, which have none.
        tasks={name: TaskFacts(facts.prompts, None)},
        adapters=replace(own.adapters(), tasks=(name,)),
        adapted=own.adapted,
        has_fixed_adapter=True,
        other_tensors=(VISION, LOGIT_SCALE),
        config_of_class=own.of_class(),
    )


def _v3_config(checkpoint: Checkpoint, text: _TextConfig) -> v3.JinaV3Config:
    """Configuration of the text tower: that of jina-embeddings-v3 with the values of the checkpoint, as its code."""
    within = "text_config.hf_model_config_kwargs"
    check_keys(checkpoint.folder / "config.json", text.hf_model_config_kwargs, TEXT_OVERRIDES, within)
    content = {**V3_CONFIG, **text.hf_model_config_kwargs}
    return parse_object(checkpoint, content, v3.JinaV3Config, v3.KEYS, within)


def read_vision(checkpoint: Checkpoint) -> Vision:
    """Build the vision tower of a checkpoint."""
    config = parse_config(checkpoint, _Config, KEYS)
    vision = parse_object(checkpoint, config.vision_config, _VisionConfig, VISION_KEYS, "vision_config")
    path = checkpoint.folder / "config.json"
    text_size = config.text_config.get("embed_dim")
    if not vision.embed_dim == vision.width == text_size:
        raise CheckpointError(
            f"{path}: vision_config has embed_dim {vision.embed_dim} and width {vision.width}, text_config has "
            f"embed_dim {shown(text_size)}; vectors of texts and images have one size, without projections"
        )
    # The convolution of the patches leaves out what is no whole patch: 8 of 512 pixels at the right and below.
    grid = vision.image_size // vision.patch_size
    if not grid or vision.width % vision.head_width:
        raise CheckpointError(
            f"{path}: vision_config has images of {vision.image_size} and patches of {vision.patch_size} pixels, and "
            f"{vision.width} channels in heads of {vision.head_width}; is it that of the model?"
        )
    shape = EvaShape(
        depth=vision.layers,
        hidden=vision.width,
        heads=vision.width // vision.head_width,
        intermediate=int(vision.width * vision.mlp_ratio),
        patch_size=vision.patch_size,
        grid=grid,
        trained_grid=vision.pt_hw_seq_len,
        prefix=VISION_PREFIX,
    )
    return Vision(eva_tower(shape), _image_recipe(checkpoint, vision), VISION, gives="vectors")


def _image_recipe(checkpoint: Checkpoint, vision: _VisionConfig) -> SquareImage:
    path = checkpoint.folder / "preprocessor_config.json"
    content = read_json(path, dict[str, Any])
    check_keys(path, content, PREPROCESSOR_KEYS)
    try:
        found = msgspec.convert(content, _Preprocessor)
    except msgspec.ValidationError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause
    if found.size != vision.image_size:
        raise CheckpointError(
            f"{path}: size is {found.size}, the vision tower of config.json takes images of "
            f"{vision.image_size} pixels; are both of one model?"
        )
    return SquareImage(
        size=vision.image_size,
        patch_size=vision.patch_size,
        resize=RESIZES[found.resize_mode],
        filter=found.interpolation,
        mean=found.mean,
        std=found.std,
    )


FAMILY = Family(
    "jina_clip",
    by_model_type("jina_clip"),
    read,
    (KEYS, TEXT_KEYS, TEXT_OVERRIDES, VISION_KEYS, PREPROCESSOR_KEYS),
    read_vision,
    own_modules=("custom_st.Transformer",),
)
