"""Texts of jina-embeddings-v5-omni: the towers of images and sounds are left out.

The text path is that of jina-embeddings-v5-text, Qwen3 (small) or EuroBERT (nano) with the adapter of each task; each
task has rows of the special tokens of its own. The positions of texts are equal along all axes: ordinary rotary ones.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from embedpack.errors import CheckpointError
from embedpack_export.families import eurobert, qwen3
from embedpack_export.families.heads import Heads, SingleHead
from embedpack_export.families.jina_embeddings_v5 import QK_NORM
from embedpack_export.families.model import Family, Model, by_model_type
from embedpack_export.graph.towers.decoder import LINEARS_OF_A_LAYER
from embedpack_export.sources.checkpoint import Checkpoint, Size, parse_config, parse_object, read_json
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, COMMON, code_of
from embedpack_export.sources.files import exists
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, Only, no_effect, shown
from embedpack_export.sources.peft_folders import PeftFolders
from embedpack_export.sources.rope_config import is_default_rope
from embedpack_export.sources.task_tokens import TaskTokens

logger = logging.getLogger("embedpack")

# Prefix of the text path, in the checkpoint and in adapters.
TEXT = "language_model."
# Parts of images and sounds: `visual` in small, `vision_tower` in nano.
NOT_OF_TEXTS = re.compile(r"^(visual|vision_tower|mergers|audio_tower|audio_projectors)\.")
# Model types of the text path: those of the backbones, and of the classes that compute them in the model's code.
MODEL_TYPES = {"qwen3": ("qwen3", "qwen3_vl_text"), "eurobert": ("eurobert", "llama")}
# Truncations on the model cards, besides all dimensions; no file has them.
TRUNCATIONS = (32, 64, 128, 256, 512)
SETTINGS_FILE = "config_sentence_transformers.json"
OF_IMAGES_AND_SOUNDS = """vision_config audio_config image_token_id image_token_index video_token_id
vision_start_token_id vision_end_token_id audio_token_id audio_start_token_id audio_end_token_id projector_hidden_act
modality"""


def rope_of_texts(value: Any) -> str | None:
    """Reason to refuse `rope_parameters`: the model's code takes the base alone, and scales nothing."""
    plain = without_axes(value) if isinstance(value, dict) else {}
    if is_default_rope(plain) and plain.get("rope_theta") is not None:
        return None
    return f"supported: an object with rope_theta, without scaling; {ANOTHER_CHECKPOINT}"


def without_axes(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions without the axes of those of images, along which those of texts are equal."""
    return {key: found for key, found in rope.items() if key not in ("mrope_section", "mrope_interleaved")}


KEYS = KeyTable(
    "config.json (jina_embeddings_v5_omni)",
    {
        **COMMON,
        "text_config": Followed("fields of the text path: keys of qwen3 or eurobert"),
        "task_names": Followed("tasks, each with its adapter in adapters/TASK"),
        "special_token_ids": Followed("tokens whose rows of the embedding table each task replaces; needed"),
        "task": Only((None,), "calls choose a task; remove it"),
        "auto_map": code_of("JinaEmbeddingsV5OmniConfig", "JinaEmbeddingsV5OmniModel"),
        **no_effect("of images and sounds, which are left out", OF_IMAGES_AND_SOUNDS.split()),
        **no_effect("padding of a batch, which text_config has", ("pad_token_id", "eos_token_id")),
    },
)
TEXT_KEYS = KeyTable(
    "config.json (jina_embeddings_v5_omni): text_config, next to the keys of qwen3 or eurobert",
    {
        "model_type": Followed("kind of the text path, which the tensors must have too"),
        "num_hidden_layers": Followed("layers that each adapter changes"),
        "rms_norm_eps": Followed("epsilon of the norms; needed"),
        "rope_parameters": Checked("rope_theta, without scaling; needed", rope_of_texts),
        "matryoshka_dims": Followed("allowed truncations"),
    },
)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of config.json that the text path depends on."""

    text_config: dict[str, Any]
    task_names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    special_token_ids: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(min_length=1)]
    matryoshka_dims: tuple[Size, ...] = ()


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of text_config that this family needs; a default of the backbone would give other vectors."""

    model_type: str | None = None
    num_hidden_layers: Size
    rms_norm_eps: float
    rope_parameters: dict[str, Any]


def read(checkpoint: Checkpoint) -> Model:
    """Build the model of the texts of a checkpoint."""
    config = parse_config(checkpoint, Config, KEYS)
    _check(checkpoint, config)
    content = {key: value for key, value in config.text_config.items() if key in TEXT_KEYS.rules}
    text = parse_object(checkpoint, content, TextConfig, TEXT_KEYS, "text_config")
    backbone = _backbone(checkpoint, text.model_type)
    of_backbone = _config_of_backbone(config, backbone)
    model = backbone.read(replace(checkpoint, config=of_backbone))
    _log_what_is_left_out(checkpoint)
    folders = PeftFolders(checkpoint.folder / "adapters", config.task_names)
    layers = range(text.num_hidden_layers)
    return replace(
        model,
        rules=replace(model.rules, prefixes=(TEXT,)),
        heads=Heads(SingleHead("last")),
        truncate_dims=model.truncate_dims or tuple(size for size in TRUNCATIONS if size < model.hidden),
        adapters=TaskTokens(folders, f"{TEXT}embed_tokens", config.special_token_ids, "special_token_ids"),
        adapted=frozenset(f"layers.{index}.{name}" for index in layers for name in LINEARS_OF_A_LAYER),
        other_tensors=(NOT_OF_TEXTS,),
        config_of_class=of_backbone,
    )


def _check(checkpoint: Checkpoint, config: Config) -> None:
    """Refuse tokens that stand twice, and files without prompts, which variants of the model have of their own."""
    ids = config.special_token_ids
    if len(set(ids)) < len(ids):
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: special_token_ids has a token twice: {shown(list(ids))}; restore "
            "the config.json of the model"
        )
    path = checkpoint.folder / SETTINGS_FILE
    if not exists(path) or not read_json(path, dict[str, Any]).get("prompts"):
        raise CheckpointError(
            f"{path}: no prompts; variants of this model were trained with other prefixes, so the file decides: "
            "download it with the model"
        )


def _backbone(checkpoint: Checkpoint, model_type: str | None) -> Family:
    """Family of the text path, by its tensors; raises CheckpointError if `model_type` is of the other one."""
    family = (
        qwen3.FAMILY
        if any(name.startswith(TEXT) and name.endswith(QK_NORM) for name in checkpoint.tensors)
        else eurobert.FAMILY
    )
    if model_type is not None and model_type not in MODEL_TYPES[family.name]:
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: text_config.model_type is {shown(model_type)}, the tensors are "
            f"those of {family.name}; supported: {', '.join(MODEL_TYPES[family.name])}"
        )
    return family


def _config_of_backbone(config: Config, backbone: Family) -> Mapping[str, Any]:
    """Content of config.json in the spelling of the backbone's class in transformers."""
    text = config.text_config
    names = ("rope_parameters", "rope_scaling")
    ropes = {name: without_axes(text[name]) for name in names if isinstance(text.get(name), dict)}
    truncations = {"matryoshka_dims": list(config.matryoshka_dims)} if config.matryoshka_dims else {}
    return {**truncations, **text, **ropes, "model_type": backbone.name}


def _log_what_is_left_out(checkpoint: Checkpoint) -> None:
    parts = sorted({found[1] for name in checkpoint.tensors if (found := NOT_OF_TEXTS.match(name))})
    if parts:
        logger.info("%s: left out, because only texts are exported: %s", checkpoint.folder, ", ".join(parts))


FAMILY = Family(
    "jina_embeddings_v5_omni",
    by_model_type("jina_embeddings_v5_omni"),
    read,
    (KEYS, TEXT_KEYS),
    own_modules=("custom_st.Transformer",),
)
