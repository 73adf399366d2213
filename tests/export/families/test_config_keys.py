"""Keys of config.json: those of well-known checkpoints are accepted, each other one is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedpack.errors import CheckpointError
from embedpack_export.families import find_family
from embedpack_export.families.model import Model
from embedpack_export.sources.checkpoint import Checkpoint, read_checkpoint
from embedpack_export.sources.key_rules import Checked, Followed, KeyTable, NoEffect, Only, check_keys
from tests.helpers.exports import edit_json, edit_tensors, exactly
from tests.helpers.older_spellings import GTE_CONFIG
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder
from tests.helpers.tiny_families import FAMILIES

ENCODER: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 64, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40, "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 0,
    "position_embedding_type": "absolute", "transformers_version": "4.30.0", "type_vocab_size": 2, "use_cache": True,
    "vocab_size": 100, "torch_dtype": "float32", "classifier_dropout": None,
}  # fmt: skip
POOLER = {
    "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
}  # fmt: skip
DECODER: dict[str, Any] = {
    "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 512, "num_attention_heads": 4,
    "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True, "transformers_version": "4.43.1", "use_cache": True, "vocab_size": 100,
}  # fmt: skip
# Keys of config.json as these checkpoints have them; sizes are small.
KNOWN: dict[str, dict[str, Any]] = {
    "all-MiniLM-L6-v2": {"model_type": "bert", "_name_or_path": "nreimers/MiniLM", **ENCODER},
    "bge-small-en-v1.5": {
        "model_type": "bert", **ENCODER, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
        "architectures": ["BertModel"], "_name_or_path": "/root/.cache/torch/bge",
    },
    "bge-large-zh-v1.5": {
        "model_type": "bert", **ENCODER, **POOLER, "bos_token_id": 0, "eos_token_id": 2, "output_past": True,
    },
    "e5-base-v2": {"model_type": "bert", **ENCODER, "architectures": ["BertModel"], "_name_or_path": "tmp/"},
    "gte-base": {"model_type": "bert", **ENCODER, "dtype": "float16"},
    "mxbai-embed-large-v1": {
        "model_type": "bert", **ENCODER, "use_cache": False, "transformers.js_config": {"dtype": "q8"},
    },
    "LaBSE": {"model_type": "bert", **ENCODER, **POOLER, "output_hidden_states": True, "_num_labels": 2},
    "multilingual-e5-base": {
        "model_type": "xlm-roberta", **ENCODER, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
        "type_vocab_size": 1, "output_past": True, "architectures": ["XLMRobertaModel"],
    },
    "bge-m3": {
        "model_type": "xlm-roberta", **ENCODER, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
        "type_vocab_size": 1, "output_past": True, "_name_or_path": "",
    },
    "all-roberta-large-v1": {
        "model_type": "roberta", **ENCODER, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
        "type_vocab_size": 1, "architectures": ["RobertaForMaskedLM"], "gradient_checkpointing": False,
    },
    "sentence-camembert-base": {
        "model_type": "camembert", **ENCODER, "bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 1,
        "type_vocab_size": 1, "output_past": True,
    },
    "all-mpnet-base-v2": {
        "model_type": "mpnet", **{key: value for key, value in ENCODER.items() if key not in ("type_vocab_size",)},
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "relative_attention_num_buckets": 32,
        "architectures": ["MPNetForMaskedLM"],
    },
    "msmarco-distilbert-base-v4": {
        "model_type": "distilbert", "activation": "gelu", "architectures": ["DistilBertModel"], "dim": 64,
        "hidden_dim": 96, "n_heads": 4, "n_layers": 2, "vocab_size": 100, "max_position_embeddings": 64,
        "attention_dropout": 0.1, "dropout": 0.1, "initializer_range": 0.02, "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False, "tie_weights_": True, "pad_token_id": 0,
        "output_past": True,
    },
    "ModernBERT-base": {
        **FAMILIES["modernbert"].config, "vocab_size": 100, "reference_compile": False, "layer_norm_eps": 1e-5,
        "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0, "decoder_bias": True,
        "classifier_pooling": "mean", "deterministic_flash_attn": False, "embedding_dropout": 0.0, "mlp_dropout": 0.0,
        "gradient_checkpointing": False, "initializer_cutoff_factor": 2.0, "initializer_range": 0.02,
        "sparse_pred_ignore_index": -100, "sparse_prediction": False, "repad_logits_with_grad": False,
        "tie_word_embeddings": True, "torch_dtype": "float32", "transformers_version": "4.47.0.dev0",
        "bos_token_id": 50281, "eos_token_id": 50282, "attention_dropout": 0.0,
    },
    "gte-multilingual-base": {
        **{key: value for key, value in FAMILIES["gte"].config.items() if key != "rope_parameters"},
        **{key: value for key, value in GTE_CONFIG.items() if key != "rope_parameters"}, "vocab_size": 100,
        "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0, "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02, "torch_dtype": "float16", "id2label": {"0": "LABEL_0"},
    },
    "EuroBERT-210m": {
        **FAMILIES["eurobert"].config, "vocab_size": 100, "bos_token": "<|begin_of_text|>", "bos_token_id": 0,
        "auto_map": {
            "AutoConfig": "configuration_eurobert.EuroBertConfig", "AutoModel": "modeling_eurobert.EuroBertModel",
        },
        "mask_token": "<|mask|>", "mask_token_id": 3, "pad_token": "<|pad|>", "hidden_dropout": 0.0, "head_dim": 8,
        "eos_token": "<|end_of_text|>", "eos_token_id": 1, "is_decoder": False, "attention_dropout": 0.0,
        "initializer_range": 0.02, "pretraining_tp": 1, "tie_word_embeddings": False, "use_cache": False,
    },
    "Qwen3-Embedding-0.6B": {
        "model_type": "qwen3", **DECODER, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 28,
        "head_dim": 128, "attention_bias": False, "rope_scaling": None,
    },
    "e5-mistral-7b-instruct": {
        "model_type": "mistral", **DECODER, "sliding_window": 4096, "_name_or_path": "mistralai/Mistral-7B-v0.1",
    },
    "Llama-2-7b": {
        "model_type": "llama", **DECODER, "pretraining_tp": 1, "rope_scaling": None, "attention_bias": False,
        "pad_token_id": None, "max_length": 4096,
    },
    "TinyLlama": {"model_type": "llama", **DECODER, "rope_scaling": None, "mlp_bias": False, "head_dim": 16},
    "SmolLM2-135M": {
        "model_type": "llama", **DECODER, "is_llama_config": True, "rope_interleaved": False, "rope_scaling": None,
        "mlp_bias": False, "attention_bias": False, "pretraining_tp": 1, "transformers.js_config": {},
    },
    "Qwen2-0.5B": {
        "model_type": "qwen2", **DECODER, "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 24,
    },
    "Qwen2.5-Coder-0.5B": {
        "model_type": "qwen2", **DECODER, "use_sliding_window": False, "sliding_window": 32768, "use_mrope": False,
        "max_window_layers": 28,
    },
    "Qwen2 of transformers 5": {
        "model_type": "qwen2", **DECODER, "layer_types": ["full_attention", "full_attention"], "sliding_window": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "dtype": "float32", "pad_token_id": None,
        "eos_token_id": [1, 2],
    },
    "Qwen2.5-VL of transformers 5": {
        "model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"], "image_token_id": 5,
        "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8, "tie_word_embeddings": True,
        "text_config": {
            **DECODER, "model_type": "qwen2_5_vl_text", "layer_types": ["full_attention"] * 2, "sliding_window": None,
            "max_window_layers": 28, "use_sliding_window": False,
            "rope_parameters": {"mrope_section": [2, 3, 3], "rope_type": "default", "rope_theta": 1e6},
        },
        "vision_config": {},
    },
}  # fmt: skip


def read(config: dict[str, Any]) -> Model:
    checkpoint = Checkpoint(Path("model"), config, {}, ())
    return find_family(checkpoint).read(checkpoint)


@pytest.mark.parametrize("name", KNOWN)
def test_configurations_of_well_known_checkpoints_are_accepted(name: str) -> None:
    assert read(KNOWN[name]).vocabulary == 100


@pytest.mark.parametrize("model_type", sorted({config["model_type"] for config in KNOWN.values()}))
def test_an_unknown_key_is_refused_by_name(model_type: str) -> None:
    known = next(config for config in KNOWN.values() if config["model_type"] == model_type)
    with pytest.raises(CheckpointError) as caught:
        read({**known, "tie_word_embedings": True})
    assert str(caught.value) == (
        "model/config.json: unknown key 'tie_word_embedings' with the value True; did you mean 'tie_word_embeddings'? "
        "Remove it if vectors cannot depend on it, else report it"
    )


OWN_CODE = {"AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.XModel"}


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("Qwen2-0.5B", {"is_causal": False}, "is_causal is False; supported: true, null; attention to later"),
        ("Qwen2-0.5B", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True; supported: false"),
        ("Llama-2-7b", {"layer_types": ["sliding_attention"]}, "layer_types is ['sliding_attention']; supported: "),
        ("Qwen2-0.5B", {"auto_map": OWN_CODE}, f"auto_map is {OWN_CODE}; AutoConfig is 'configuration_x"),
        ("Llama-2-7b", {"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}; supported: null;"),
        ("Llama-2-7b", {"is_causal": False}, "is_causal is False; supported: true, null"),
        ("e5-base-v2", {"auto_map": OWN_CODE}, "auto_map is {"),
        ("bge-m3", {"pad_token_id": -1}, "pad_token_id is -1; supported: 0 or more, as positions begin after it; take"),
        ("bge-m3", {"pad_token_id": None}, "pad_token_id is None; supported: 0 or more, as positions begin after it;"),
        ("bge-m3", {"pad_token_id": 99}, "pad_token_id is 99; positions begin after it, and there are 40 positions"),
        ("e5-base-v2", {"is_causal": True}, "is_causal is True; supported: false, null; export an encoder"),
        ("e5-base-v2", {"add_cross_attention": True}, "add_cross_attention is True; supported: false, null"),
        ("Qwen2.5-VL of transformers 5", {"auto_map": OWN_CODE}, "auto_map is {"),
    ],
)  # fmt: skip
def test_values_that_make_another_model(name: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read({**KNOWN[name], **changes})
    assert str(caught.value).startswith(f"model/config.json: {reason}")


def test_code_that_is_not_used_is_no_obstacle() -> None:
    head = {"auto_map": {"AutoModelForSequenceClassification": "modeling_x.XHead"}}
    read({**KNOWN["e5-base-v2"], **head})
    code = {"auto_map": {"AutoModel": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Model"}}
    read({**KNOWN["Qwen2.5-VL of transformers 5"], **code})


@pytest.mark.parametrize("scaling", [{"rope_type": "default"}, {"type": "default"}, {"rope_type": None}])
def test_positions_without_scaling_under_any_name(scaling: dict[str, Any]) -> None:
    for name in ("Qwen2-0.5B", "Llama-2-7b"):
        read({**KNOWN[name], "rope_scaling": scaling})


def test_two_models_in_one_folder(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    shard = checkpoint / "model-00001-of-00001.safetensors"
    shard.write_bytes((checkpoint / "model.safetensors").read_bytes())
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard.name}}))
    message = (
        f"{checkpoint}: has the weights of two models, model.safetensors and those of model.safetensors.index.json "
        f"({shard.name}, ...); remove the older ones"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        read_checkpoint(checkpoint)
    # An index without its shards is no second model.
    shard.unlink()
    assert read_checkpoint(checkpoint).weight_files == ("model.safetensors",)


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_an_embedding_table_that_is_stored_as_the_head_alone(tmp_path: Path, prefix: str) -> None:
    checkpoint = make_decoder(tmp_path / "toy", spelling="model" if prefix else "bare", tie_word_embeddings=True)
    table = f"{prefix}embed_tokens.weight"
    rows = read_checkpoint(checkpoint).tensors[table].raw()
    edit_tensors(
        checkpoint / "model.safetensors", lambda tensors: tensors.update({"lm_head.weight": tensors.pop(table)})
    )
    assert (read_checkpoint(checkpoint).tensors[table].raw() == rows).all()
    edit_json(checkpoint / "config.json", tie_word_embeddings=False)
    assert table not in read_checkpoint(checkpoint).tensors


def test_rules() -> None:
    table = KeyTable("x.json", {
        "a": Followed("all"), "b": NoEffect("old"), "c": Only((True, 1.5, None), "leave it out"),
        "d": Checked("even", lambda value: "it must be even" if value % 2 else None), "*_token": NoEffect("tokens"),
    })  # fmt: skip
    check_keys(Path("x.json"), {"a": 1, "b": [], "c": None, "d": 2, "end_token": ""}, table)
    for content, message in (
        ({"c": 1}, "x.json: c is 1; supported: true, 1.5, null; leave it out"),
        ({"c": "y" * 100}, f"x.json: c is '{'y' * 76}...; supported: true, 1.5, null; leave it out"),
        ({"d": 3}, "x.json: d is 3; it must be even"),
        (
            {"e": 3},
            "x.json: unknown key 'e' with the value 3; Remove it if vectors cannot depend on it, else report it",
        ),
    ):
        with pytest.raises(CheckpointError, match=exactly(message)):
            check_keys(Path("x.json"), content, table)
    with pytest.raises(CheckpointError, match=r"x\.json: part\.c is 1; "):
        check_keys(Path("x.json"), {"c": 1}, table, "part")
