"""Keys of config.json and of the image processor of Qwen2.5-VL, in the layout of jina-embeddings-v4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedpack_export.sources.config_keys import (
    ANOTHER_CHECKPOINT,
    COMMON,
    DECODERS,
    own_code,
    sizes,
)
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, Only, Rule, no_effect
from embedpack_export.sources.rope_config import is_default_rope

IMAGE_TOKENS = ("image_token_id", "vision_start_token_id", "vision_end_token_id")
VISION_SIZES = """depth hidden_size num_heads intermediate_size patch_size temporal_patch_size spatial_merge_size
window_size fullatt_block_indexes out_hidden_size in_channels"""
ELSEWHERE = """image_processor_type processor_class _processor_class device disable_grouping input_data_format
return_tensors default_to_square crop_size pad_size size_divisor"""
IMAGE_VALUES = "image_mean image_std patch_size temporal_patch_size merge_size min_pixels max_pixels size"


def own_code_of_jina(value: Any) -> str | None:
    """Reason to refuse an `auto_map`; the classes of jina-embeddings-v4 are what this family computes."""
    if not isinstance(value, dict):
        return own_code(value)
    return own_code({name: code for name, code in value.items() if ".JinaEmbeddingsV4" not in str(code)})


def scaling_of_three_axes(value: Any) -> str | None:
    """Reason to refuse a `rope_scaling` of positions along three axes."""
    if not isinstance(value, dict) or "mrope_section" not in value:
        return "mrope_section is missing; is it a checkpoint of Qwen2.5-VL?"
    others = {key: found for key, found in value.items() if key != "mrope_section"}
    plain = {key: "default" if found == "mrope" else found for key, found in others.items()}
    return None if is_default_rope(plain) else f"supported: a rope_type of default or mrope; {ANOTHER_CHECKPOINT}"


def near_255th(value: Any) -> str | None:
    """Reason to refuse a `rescale_factor`."""
    plain = isinstance(value, float) and abs(value * 255 - 1) < 1e-6
    return None if plain or value is None else f"supported: 1/255; {ANOTHER_CHECKPOINT}"


OF_TEXTS: Mapping[str, Rule] = {
    **DECODERS,
    **sizes("num_key_value_heads"),
    "rms_norm_eps": Followed("epsilon of the norms"),
    "rope_scaling": Checked("mrope_section, without scaling", scaling_of_three_axes),
    "rope_parameters": Checked("rope_theta and mrope_section, without scaling", scaling_of_three_axes),
}
TEXT_KEYS = KeyTable(
    "config.json (qwen2_5_vl): text_config",
    {
        **OF_TEXTS,
        **no_effect("of images", ("image_token_id", "video_token_id", "vision_*token_id")),
    },
)
KEYS = KeyTable(
    "config.json (qwen2_5_vl)",
    {
        **OF_TEXTS,
        "auto_map": Checked("classes of jina-embeddings-v4", own_code_of_jina),
        "text_config": Followed("fields of the text graph"),
        "vision_config": Followed("fields of the vision tower"),
        "task_names": Followed("tasks of the adapters"),
        "truncate_dim": Followed("an allowed truncation"),
        "multi_vector_projector_dim": Followed("dimensions of multi-vectors"),
        "single_vector_pool_strategy": Only(("mean",), ANOTHER_CHECKPOINT),
        "bos_token_id": Followed("padding token, if pad_token_id is missing"),
        **{name: Followed("tokens around an image") for name in IMAGE_TOKENS},
        **no_effect("of videos", ("video_token_id", "vision_token_id")),
        **no_effect(
            "a record of how the model was made or is run", ("pretrained_peft_model_name_or_path", "verbosity")
        ),
    },
)
VISION_KEYS = KeyTable(
    "config.json (qwen2_5_vl): vision_config",
    {
        **COMMON,
        **{name: Followed("shape of the vision tower") for name in VISION_SIZES.split()},
        **no_effect("repeated under another name", ("in_chans", "spatial_patch_size", "embed_dim")),
        **no_effect("of videos", ("tokens_per_second",)),
        "hidden_act": Only(("silu",), ANOTHER_CHECKPOINT),
    },
)
PREPROCESSOR_KEYS = KeyTable(
    "preprocessor_config.json, or image_processor of processor_config.json",
    {
        **{name: Followed("size and values of an image") for name in IMAGE_VALUES.split()},
        "resample": Only((3,), "only bicubic resizing is supported"),
        **{name: Only((True,), ANOTHER_CHECKPOINT) for name in ("do_resize", "do_rescale", "do_normalize")},
        "do_convert_rgb": Only((True, None), ANOTHER_CHECKPOINT),
        "rescale_factor": Checked("1/255", near_255th),
        **{name: Only((False, None), ANOTHER_CHECKPOINT) for name in ("do_center_crop", "do_pad")},
        "auto_map": Checked("classes of jina-embeddings-v4", own_code_of_jina),
        "data_format": Only(("channels_first", None), ANOTHER_CHECKPOINT),
        **no_effect("a record of how images are processed elsewhere", ELSEWHERE.split()),
        **no_effect(
            "of videos",
            [
                "video_processor_type",
                "do_sample_frames",
                "fps",
                "min_frames",
                "max_frames",
                "num_frames",
                "video_metadata",
                "return_metadata",
                "temporal_factor",
            ],
        ),
    },
)
PROCESSOR_KEYS = KeyTable(
    "processor_config.json",
    {
        "image_processor": Followed("processing of images"),
        "auto_map": Checked("classes of jina-embeddings-v4", own_code_of_jina),
        **no_effect("the class that combines tokenizer and images", ("processor_class",)),
        **no_effect("of videos", ("video_processor",)),
        **no_effect("a template is not applied", ("chat_template",)),
    },
)
