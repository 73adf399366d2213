"""Qwen2.5-VL as in jina-embeddings-v4: texts and images, three tasks, single vectors and multi-vectors.

Merged checkpoints without adapters, or without the projector for multi-vectors, are read too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
from tokenizers import Tokenizer

from embedpack.errors import CheckpointError
from embedpack.pack.input_recipes import PatchSize, QwenImage, WindowSize
from embedpack_export.families.heads import Heads, SingleHead, TokenHead
from embedpack_export.families.model import PROJECTOR, Family, Model, TaskFacts, Vision, by_model_type
from embedpack_export.families.qwen2_5_vl_keys import KEYS, PREPROCESSOR_KEYS, PROCESSOR_KEYS, TEXT_KEYS, VISION_KEYS
from embedpack_export.graph.towers.decoder import LINEARS_OF_A_LAYER, DecoderShape, causal_decoder
from embedpack_export.graph.towers.qwen_vision import VisionShape, vision_tower
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config, parse_object, read_json
from embedpack_export.sources.files import exists
from embedpack_export.sources.head_layers import Dense
from embedpack_export.sources.key_rules import check_keys, shown
from embedpack_export.sources.name_rules import NameRules
from embedpack_export.sources.peft_folders import PeftFile
from embedpack_export.sources.tokenizer_ends import library_errors

IMAGE_PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
# The positions allow more; the model's own code truncates here.
MAX_TOKENS = 32_768
RETRIEVAL = TaskFacts({"query": "Query: ", "passage": "Passage: "}, "query")
# Both texts of a pair have the same prompt.
MATCHING = TaskFacts({"query": "Query: ", "passage": "Query: "}, "query")
VISION = re.compile(r"^visual\.")

# Both spellings: "model.layers", "visual" of older files, "model.language_model.layers", "model.visual" of newer ones.
RULES = NameRules(
    prefixes=("model.", "language_model.", "model."),
    renames={},
    unused=re.compile(r"^lm_head\.|rotary_emb\.inv_freq$|rotary_pos_emb\.inv_freq$"),
)


class RopeScaling(msgspec.Struct, frozen=True):
    """Positions along three axes; no scaling."""

    mrope_section: tuple[int, int, int]


class TextConfig(msgspec.Struct, frozen=True):
    """text_config, or its fields at the top of config.json in older files."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    intermediate_size: Size
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling
    max_position_embeddings: Size


class VisionConfig(msgspec.Struct, frozen=True):
    """vision_config."""

    depth: Size
    hidden_size: Size
    num_heads: Size
    intermediate_size: Size
    patch_size: PatchSize
    temporal_patch_size: WindowSize
    spatial_merge_size: WindowSize
    window_size: Size
    fullatt_block_indexes: tuple[int, ...]
    out_hidden_size: Size
    in_channels: Literal[3] = 3


class Config(msgspec.Struct, frozen=True):
    """Fields of config.json that the text graph depends on."""

    task_names: tuple[str, ...] = ()
    matryoshka_dims: tuple[int, ...] = ()
    truncate_dim: int | None = None
    multi_vector_projector_dim: Size = 128
    pad_token_id: int | None = None
    bos_token_id: int | None = None


class ImageConfig(msgspec.Struct, frozen=True):
    """Fields of config.json that images depend on."""

    vision_config: VisionConfig
    image_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int


@dataclass(frozen=True)
class ImageTower:
    """Outputs of a vision tower, sizes of patch, temporal patch and merge, and tokens along a side of a window."""

    hidden: int
    sides: tuple[int, int, int]
    window: int | None


@dataclass(frozen=True)
class ImageTokens:
    """Token id of each token of an image, and those around it."""

    before: tuple[int, ...]
    image: int
    after: tuple[int, ...]


class PreprocessorConfig(msgspec.Struct, frozen=True):
    """preprocessor_config.json, or `image_processor` of processor_config.json."""

    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    patch_size: PatchSize
    temporal_patch_size: WindowSize
    merge_size: WindowSize
    min_pixels: int | None = None
    max_pixels: int | None = None
    size: dict[str, int | None] = {}


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of a checkpoint, without its vision tower."""
    config, text = parse_config(checkpoint, Config, KEYS), text_config(checkpoint)
    adapters = checkpoint.folder / "adapters"
    has_adapters = exists(adapters / "adapter_config.json")
    return Model(
        hidden=text.hidden_size,
        max_tokens=min(MAX_TOKENS, text.max_position_embeddings),
        # <|endoftext|>: the tokenizer's padding token, which config.json gives as the beginning of a text.
        pad_token_id=config.bos_token_id if config.pad_token_id is None else config.pad_token_id,
        vocabulary=text.vocab_size,
        truncate_dims=(*config.matryoshka_dims, *(() if config.truncate_dim is None else (config.truncate_dim,))),
        rules=RULES,
        text=causal_decoder(decoder_shape(text)),
        # The three axes of the positions of texts are equal: ordinary rotary positions.
        text_alone=causal_decoder(replace(decoder_shape(text), sections=(), images=False)),
        heads=Heads(SingleHead("mean"), _token_head(checkpoint, config, text.hidden_size)),
        tasks={"": RETRIEVAL} | {task: _facts(task) for task in config.task_names},
        adapters=PeftFile(adapters, config.task_names) if has_adapters else None,
        adapted=_adapted(text) if has_adapters else frozenset(),
        other_tensors=(VISION,),
    )


def text_config(checkpoint: Checkpoint) -> TextConfig:
    """Fields of the text graph."""
    nested: Any = checkpoint.config.get("text_config")
    if nested is None:
        return parse_object(checkpoint, checkpoint.config, TextConfig, KEYS)
    if not isinstance(nested, dict):
        raise CheckpointError(f"{checkpoint.folder / 'config.json'}: text_config is {shown(nested)}; it is an object")
    return parse_object(checkpoint, nested, TextConfig, TEXT_KEYS, "text_config")


def decoder_shape(text: TextConfig) -> DecoderShape:
    """Shape of the text graph."""
    return DecoderShape(
        vocabulary=text.vocab_size,
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_size=text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        epsilon=text.rms_norm_eps,
        rope_theta=text.rope_theta,
        biases=True,
        sections=text.rope_scaling.mrope_section,
        images=True,
    )


def _facts(task: str) -> TaskFacts:
    return MATCHING if task == "text-matching" else RETRIEVAL


def _adapted(text: TextConfig) -> frozenset[str]:
    """Modules that an adapter changes: seven linear layers in each layer, and the projector."""
    layers = range(text.num_hidden_layers)
    return frozenset({PROJECTOR, *(f"layers.{index}.{name}" for index in layers for name in LINEARS_OF_A_LAYER)})


def _token_head(checkpoint: Checkpoint, config: Config, hidden: int) -> TokenHead | None:
    has_projector = any(RULES.normal(name) == f"{PROJECTOR}.weight" for name in checkpoint.tensors)
    layer = Dense(PROJECTOR, hidden, config.multi_vector_projector_dim, bias=True)
    return TokenHead((layer,)) if has_projector else None


def read_vision(checkpoint: Checkpoint) -> Vision:
    """Build the vision tower of a checkpoint."""
    config, text = parse_config(checkpoint, ImageConfig, KEYS), text_config(checkpoint)
    check_keys(checkpoint.folder / "config.json", checkpoint.config["vision_config"], VISION_KEYS, "vision_config")
    vision = config.vision_config
    if vision.out_hidden_size != text.hidden_size:
        raise CheckpointError(
            f"config.json: the vision tower has {vision.out_hidden_size} output channels, the decoder "
            f"{text.hidden_size}; are both of one model?"
        )
    shape = VisionShape(
        depth=vision.depth,
        hidden=vision.hidden_size,
        heads=vision.num_heads,
        intermediate=vision.intermediate_size,
        kernel=(vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size),
        merge=vision.spatial_merge_size,
        window=vision.window_size // vision.patch_size // vision.spatial_merge_size,
        full_attention=frozenset(vision.fullatt_block_indexes),
        output=vision.out_hidden_size,
    )
    tower = ImageTower(
        vision.out_hidden_size, (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size), shape.window
    )
    return Vision(
        vision_tower(shape), image_recipe(checkpoint.folder, tower, _tokens(checkpoint.folder, config)), VISION
    )


def image_recipe(folder: Path, tower: ImageTower, tokens: ImageTokens) -> QwenImage:
    """Processing of images by the files of the processor; CheckpointError if they contradict config.json."""
    path, processor = _preprocessor(folder)
    if tower.sides != (processor.patch_size, processor.temporal_patch_size, processor.merge_size):
        raise CheckpointError(
            f"{path}: patch, temporal patch and merge sizes are not those of config.json, {tower.sides}"
        )
    smallest = processor.min_pixels or processor.size.get("shortest_edge")
    largest = processor.max_pixels or processor.size.get("longest_edge")
    if smallest is None or largest is None:
        raise CheckpointError(f"{path}: neither min_pixels, max_pixels nor size")
    return QwenImage(
        hidden=tower.hidden,
        patch_size=processor.patch_size,
        temporal_patch_size=processor.temporal_patch_size,
        merge_size=processor.merge_size,
        window_size=tower.window,
        min_pixels=smallest,
        max_pixels=largest,
        mean=processor.image_mean,
        std=processor.image_std,
        tokens_before=tokens.before,
        token=tokens.image,
        tokens_after=tokens.after,
        # The delimiters of the image, which stand next to it.
        pooled_before=1,
        pooled_after=1,
    )


def _preprocessor(folder: Path) -> tuple[Path, PreprocessorConfig]:
    """Processing of images: that of processor_config.json, which transformers 5 writes, else the older file."""
    path, within = folder / "processor_config.json", "image_processor"
    content = read_json(path, dict[str, Any]) if exists(path) else {}
    check_keys(path, content, PROCESSOR_KEYS)
    if content.get(within) is None:
        path, within = folder / "preprocessor_config.json", ""
        content = {"image_processor": read_json(path, dict[str, Any])}
    try:
        image = msgspec.convert(content["image_processor"], dict[str, Any])
        check_keys(path, image, PREPROCESSOR_KEYS, within)
        return path, msgspec.convert(image, PreprocessorConfig)
    except msgspec.ValidationError as cause:
        raise CheckpointError(f"{path}: {f'{within}: ' if within else ''}{cause}") from cause


def _tokens(folder: Path, config: ImageConfig) -> ImageTokens:
    """Tokens of the prompt before the image and after it."""
    path = folder / "tokenizer.json"
    with library_errors(path):
        ids: Sequence[int] = Tokenizer.from_file(str(path)).encode(IMAGE_PROMPT, add_special_tokens=False).ids
    start, image, end = config.vision_start_token_id, config.image_token_id, config.vision_end_token_id
    position = ids.index(image) if image in ids else 0
    if list(ids[max(position - 1, 0) : position + 2]) != [start, image, end]:
        raise CheckpointError(
            f"{path}: the image prompt has the tokens {list(ids)}, without {start}, {image}, {end} of config.json in "
            "a row; is it the tokenizer of this model?"
        )
    return ImageTokens(tuple(ids[:position]), image, tuple(ids[position + 1 :]))


FAMILY = Family(
    "qwen2_5_vl",
    by_model_type("qwen2_5_vl"),
    read,
    (KEYS, TEXT_KEYS, VISION_KEYS, PREPROCESSOR_KEYS, PROCESSOR_KEYS),
    read_vision,
    own_modules=("custom_st.Transformer",),
)
