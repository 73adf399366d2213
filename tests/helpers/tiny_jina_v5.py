"""jina-embeddings-v5-text in its published layout at toy size: files, keys and names of the repositories of all tasks.

The weights are random; PEFT writes the adapters. `nano` has EuroBERT below it, `small` Qwen3.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, processors

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.exports import edit_json
from tests.helpers.peft_oracle import merged_by_peft, save_adapter
from tests.helpers.tiny_decoder import make_tensors as decoder_tensors
from tests.helpers.tiny_decoder import make_tokenizer
from tests.helpers.tiny_rotary import rotary_tensors

Size = Literal["small", "nano"]
TASKS = ("retrieval", "text-matching", "clustering", "classification")
TARGETS = ["gate_proj", "v_proj", "q_proj", "down_proj", "o_proj", "k_proj", "up_proj"]
PROMPTS = {"query": "Query: ", "document": "Document: "}
SETTINGS_FILE = "config_sentence_transformers.json"
SETTINGS = {
    "__version__": {"sentence_transformers": "5.1.2", "transformers": "4.57.0", "pytorch": "2.8.0"},
    "prompts": PROMPTS,
    "default_prompt_name": "document",
    "similarity_fn_name": "cosine",
}
# A module of the model's own code, and no pooling.
MODULES = [
    {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer", "kwargs": ["task", "truncate_dim"]}
]
# Between two of the truncations on the model cards.
HIDDEN = 96
COMMON: dict[str, Any] = {
    "architectures": ["JinaEmbeddingsV5Model"],
    "task_names": list(TASKS),
    "auto_map": {
        "AutoConfig": "configuration_jina_embeddings_v5.JinaEmbeddingsV5Config",
        "AutoModel": "modeling_jina_embeddings_v5.JinaEmbeddingsV5Model",
    },
    "model_type": "jina_embeddings_v5",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}
CONFIGS: dict[Size, dict[str, Any]] = {
    "small": {
        **COMMON,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "max_window_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 3_500_000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
    },
    "nano": {
        **COMMON,
        "bos_token": "<|endoftext|>",
        "bos_token_id": 0,
        "eos_token": "<|endoftext|>",
        "eos_token_id": 0,
        "pad_token": "<|endoftext|>",
        # Another padding token than that of the tokenizer.
        "pad_token_id": 0,
        "mask_token": "<|mask|>",
        "mask_token_id": 1,
        "hidden_dropout": 0.0,
        "max_position_embeddings": 2048,
        "num_key_value_heads": 4,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 1_000_000,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.40.0.dev0",
        "is_decoder": False,
    },
}
BACKBONES: dict[Size, str] = {"small": "qwen3", "nano": "eurobert"}


def make_jina_v5(folder: Path, size: Size, *, end: bool = False, seed: int = 7) -> Path:
    """Write a checkpoint with its four adapters; `end`: its tokenizer puts a token after a text."""
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer("qwen3")
    if not end:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {**CONFIGS[size], "vocab_size": tokenizer.get_vocab_size() + 3}
    make_tensors = {"small": decoder_tensors, "nano": rotary_tensors}[size]
    tensors = make_tensors({**config, "model_type": BACKBONES[size], "mlp_bias": False}, seed)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    write_safetensors(folder / "model.safetensors", bare, {"format": "pt"})
    files: dict[str, object] = {
        "config.json": config,
        "tokenizer_config.json": _tokenizer_config(tokenizer, size),
        "modules.json": MODULES,
        SETTINGS_FILE: SETTINGS,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA toy.\n")
    _add_adapters(folder, size)
    return folder


def make_merged(folder: Path, size: Size, whole: Path, task: str) -> Path:
    """Write the checkpoint of one task, whose adapter is merged, as the repository of that task has it."""
    as_backbone(whole, folder, size)
    merged = merged_by_peft(folder, whole / "adapters" / task)
    write_safetensors(folder / "model.safetensors", merged, {"format": "pt"})
    shutil.copyfile(whole / SETTINGS_FILE, folder / SETTINGS_FILE)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def as_backbone(whole: Path, folder: Path, size: Size) -> Path:
    """Write the backbone with the configuration of transformers' class, which AutoModel loads."""
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(whole / name, folder / name)
    config = json.loads((whole / "config.json").read_text())
    others = {key: value for key, value in config.items() if key not in ("auto_map", "task_names", "is_decoder")}
    (folder / "config.json").write_text(json.dumps({**others, "model_type": BACKBONES[size]}))
    return folder


def _add_adapters(folder: Path, size: Size) -> None:
    """Train the adapters of all tasks, with the settings of the published ones."""
    with tempfile.TemporaryDirectory() as scratch:
        backbone = as_backbone(folder, Path(scratch) / "backbone", size)
        for number, task in enumerate(TASKS):
            adapter = save_adapter(
                backbone,
                folder / "adapters" / task,
                seed=number,
                r=4,
                lora_alpha=4,
                target_modules=TARGETS,
                init_lora_weights="gaussian",
                lora_dropout=0.05 if task == "classification" else 0.1,
                task_type="FEATURE_EXTRACTION",
            )
            name = f"jinaai/jina-embeddings-v5-text-{size}"
            edit_json(adapter / "adapter_config.json", base_model_name_or_path=name)


def _tokenizer_config(tokenizer: Tokenizer, size: Size) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = tokenizer.get_added_tokens_decoder().items()
    return {
        "added_tokens_decoder": {str(number): {"content": token.content, **flags} for number, token in added},
        "clean_up_tokenization_spaces": size == "nano",
        "eos_token": "<|endoftext|>",
        "extra_special_tokens": {},
        "model_max_length": 131_072 if size == "small" else 1000000000000000019884624838656,
        "pad_token": "<|endoftext|>" if size == "small" else "<pad>",
        "tokenizer_class": "Qwen2Tokenizer" if size == "small" else "PreTrainedTokenizer",
    }
