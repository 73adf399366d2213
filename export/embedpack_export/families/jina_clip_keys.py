"""Rules of the keys of jina-clip-v2's config.json and preprocessor_config.json; no family of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedpack_export.families import jina_embeddings_v3 as v3
from embedpack_export.sources.config_keys import ANOTHER_CHECKPOINT, COMMON, code_of
from embedpack_export.sources.key_rules import Followed, KeyTable, NoEffect, Only, no_effect

TEXT_MODEL = "jinaai/jina-embeddings-v3"
# Values of config.json of that model, which its text tower has unless hf_model_config_kwargs replaces them.
V3_CONFIG: Mapping[str, Any] = {
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "hidden_act": "gelu",
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20_000.0,
    "matryoshka_dimensions": [32, 64, 128, 256, 512, 768, 1024],
}
# Older files have their copies of these, which are read from text_config and vision_config alone.
NO_COPIES = ("text_config_dict", "vision_config_dict")

KEYS = KeyTable(
    "config.json (jina_clip)",
    {
        **COMMON,
        "text_config": Followed("the text tower; needed"),
        "vision_config": Followed("the vision tower; needed for images"),
        "matryoshka_dimensions": Followed("allowed truncations; needed"),
        "matryoshka_dims": Only((None,), "truncations are in matryoshka_dimensions; remove it"),
        "truncate_dim": Only((None,), "calls choose a truncation; remove it"),
        "add_projections": Only((False,), "projections are not supported; export a checkpoint without them"),
        "auto_map": code_of("JinaCLIPConfig", "JinaCLIPModel"),
        **{name: Only((None,), "its values must be those of text_config and vision_config") for name in NO_COPIES},
        **no_effect("size of projections, which the model does not have", ("projection_dim",)),
        **no_effect("factor of similarities in training", ("logit_scale_init_value",)),
        **no_effect("of how the model is run", ("use_text_flash_attn", "use_vision_xformers")),
    },
)
TEXT_KEYS = KeyTable(
    "config.json (jina_clip), text_config",
    {
        **COMMON,
        "embed_dim": Followed("size of the vectors; needed"),
        "hf_model_name_or_path": Only((TEXT_MODEL,), ANOTHER_CHECKPOINT),
        "hf_model_config_kwargs": Followed("values that replace those of jina-embeddings-v3; needed"),
        "default_lora_task": Followed("the adapter, which is always on; needed"),
        "default_instruction_task": Only((None,), "the prompt of queries is not that of documents; remove it"),
        "pooler_type": Only(("mean_pooler", "mean"), ANOTHER_CHECKPOINT),
        "proj_type": Only((None,), "projections are not supported; export a checkpoint without them"),
        **no_effect("of projections, which the model does not have", ("proj_bias",)),
    },
)
TEXT_OVERRIDES = KeyTable(
    "config.json (jina_clip), text_config.hf_model_config_kwargs",
    {**v3.KEYS.rules, "matryoshka_dimensions": NoEffect("truncations are those of the whole model")},
)
VISION_KEYS = KeyTable(
    "config.json (jina_clip), vision_config",
    {
        **COMMON,
        **{
            name: Followed("shape of the tower; needed")
            for name in ("embed_dim", "width", "layers", "head_width", "mlp_ratio", "image_size", "patch_size")
        },
        "pt_hw_seq_len": Followed("patches along a side in the training of the rotary positions; needed"),
        "rope_embeddings": Only((True,), ANOTHER_CHECKPOINT),
        "intp_freq": Only((True,), ANOTHER_CHECKPOINT),
        "naive_swiglu": Only((True,), ANOTHER_CHECKPOINT),
        "subln": Only((True,), ANOTHER_CHECKPOINT),
        "qkv_bias": Only((True,), ANOTHER_CHECKPOINT),
        "post_norm": Only((False,), ANOTHER_CHECKPOINT),
        "ls_init_value": Only((None,), "layer scales are not supported; export a checkpoint without them"),
        "proj_type": Only((None,), "projections are not supported; export a checkpoint without them"),
        **no_effect("used in training alone", ("patch_dropout", "drop_path_rate")),
        **no_effect("of how the model is run", ("fused_layer_norm", "x_attention")),
    },
)
PREPROCESSOR_KEYS = KeyTable(
    "preprocessor_config.json (jina_clip)",
    {
        "size": Followed("side of the square; needed"),
        "mean": Followed("mean of red, green and blue; needed"),
        "std": Followed("standard deviation of red, green and blue; needed"),
        "resize_mode": Only(("shortest", "squash"), "images with a border are not supported"),
        "interpolation": Only(("bicubic", "bilinear"), ANOTHER_CHECKPOINT),
        "auto_map": code_of("JinaCLIPImageProcessor", "JinaCLIPProcessor"),
        **no_effect("of borders, which the square does not have", ("fill_color",)),
        **no_effect(
            "a record of how the model is run", ("image_processor_type", "processor_class", "feature_extractor_type")
        ),
    },
)
