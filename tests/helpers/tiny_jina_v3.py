"""jina-embeddings-v3 in its published layout at toy size: files, keys of config.json, names and shapes of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.storage.safetensors import write_safetensors
from tests.helpers.exports import Arrays, read_tensors
from tests.helpers.sentencepiece import make_unigram

TASKS = ("retrieval.query", "retrieval.passage", "separation", "classification", "text-matching")
INSTRUCTIONS = {
    "retrieval.query": "Represent the query for retrieving evidence documents: ",
    "retrieval.passage": "Represent the document for retrieval: ",
    "separation": "",
    "classification": "",
    "text-matching": "",
}
HIDDEN, INNER, LAYERS, RANK, ALPHA = 64, 96, 2, 3, 2
PARTS = ".parametrizations.weight"
CODE = "jinaai/xlm-roberta-flash-implementation--"
# No model_type. Rank, alpha and base are other values than those that the code has by default.
CONFIG: dict[str, Any] = {
    "_name_or_path": "jinaai/jina-embeddings-v3",
    "architectures": ["XLMRobertaModel"],
    "attention_probs_dropout_prob": 0.1,
    "auto_map": {
        "AutoConfig": f"{CODE}configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": f"{CODE}modeling_lora.XLMRobertaLoRA",
        "AutoModelForMaskedLM": f"{CODE}modeling_xlm_roberta.XLMRobertaForMaskedLM",
        "AutoModelForPreTraining": f"{CODE}modeling_xlm_roberta.XLMRobertaForPreTraining",
    },
    "bos_token_id": 0,
    "classifier_dropout": None,
    "emb_pooler": None,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-05,
    "load_trained_adapters": True,
    "lora_adaptations": list(TASKS),
    "lora_alpha": ALPHA,
    "lora_dropout_p": 0.0,
    "lora_main_params_trainable": False,
    "lora_rank": RANK,
    "matryoshka_dimensions": [32, 48, HIDDEN],
    "max_position_embeddings": 2050,
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "output_past": True,
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "rotary_emb_base": 700.0,
    "task_instructions": INSTRUCTIONS,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.30.2",
    "truncate_dim": None,
    "type_vocab_size": 1,
    "use_cache": True,
    "use_flash_attn": True,
}
MODULES = [
    {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer", "kwargs": ["task"]},
    {"idx": 1, "name": "pooler", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "normalizer", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
POOLING = {
    "word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False,
    "pooling_mode_weightedmean_tokens": False, "pooling_mode_lasttoken": False, "include_prompt": True,
}  # fmt: skip


def make_jina_v3(folder: Path, *, seed: int = 7) -> Path:
    """Write a checkpoint."""
    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer = make_unigram()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {**CONFIG, "vocab_size": tokenizer.get_vocab_size()}
    write_safetensors(folder / "model.safetensors", make_tensors(config["vocab_size"], seed), {"format": "pt"})
    special = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    files: dict[str, object] = {
        "config.json": config,
        "modules.json": MODULES,
        "1_Pooling/config.json": POOLING,
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "3.1.0", "transformers": "4.41.2", "pytorch": "2.3.1+cu121"},
            "prompts": INSTRUCTIONS,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "tokenizer_config.json": {
            **special,
            "pad_token": "<pad>",
            "mask_token": "<mask>",
            "clean_up_tokenization_spaces": True,
            "model_max_length": 2050,
            "tokenizer_class": "XLMRobertaTokenizer",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA toy.\n")
    return folder


def make_tensors(vocabulary: int, seed: int) -> Arrays:
    """All tensors; adapters change the vectors of each task clearly."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.2, mean: float = 0.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale + mean).astype(np.float32)

    tensors: Arrays = {}

    def adapted(module: str, rows: int, columns: int, *, table: bool = False) -> None:
        tensors[f"{module}{PARTS}.original"] = normal(rows, columns)
        tensors[f"{module}{PARTS}.0.lora_A"] = normal(len(TASKS), *((rows, RANK) if table else (RANK, columns)))
        tensors[f"{module}{PARTS}.0.lora_B"] = normal(len(TASKS), *((RANK, columns) if table else (rows, RANK)))
        if not table:
            tensors[f"{module}.bias"] = normal(rows)

    adapted("roberta.embeddings.word_embeddings", vocabulary, HIDDEN, table=True)
    adapted("roberta.embeddings.token_type_embeddings", 1, HIDDEN, table=True)
    norms = ["roberta.emb_ln"]
    for index in range(LAYERS):
        layer = f"roberta.encoder.layers.{index}"
        adapted(f"{layer}.mixer.Wqkv", 3 * HIDDEN, HIDDEN)
        adapted(f"{layer}.mixer.out_proj", HIDDEN, HIDDEN)
        adapted(f"{layer}.mlp.fc1", INNER, HIDDEN)
        adapted(f"{layer}.mlp.fc2", HIDDEN, INNER)
        norms += [f"{layer}.norm1", f"{layer}.norm2"]
    adapted("roberta.pooler.dense", HIDDEN, HIDDEN)
    for norm in norms:
        tensors[f"{norm}.weight"] = normal(HIDDEN, scale=0.1, mean=1.0)
        tensors[f"{norm}.bias"] = normal(HIDDEN, scale=0.1)
    return tensors


def as_transformers(checkpoint: Path, folder: Path, task: str | None) -> Path:
    """The checkpoint with the adapter of a task (None: without one) in its weights, as AutoModel loads it.

    Tensors keep the names of the code, which transformers converts by a table of its own.
    """
    folder.mkdir()
    config = json.loads((checkpoint / "config.json").read_text())
    sizes = (*config_sizes(), "layer_norm_eps", "max_position_embeddings", "pad_token_id", "type_vocab_size")
    rope = {"rope_type": "default", "rope_theta": config["rotary_emb_base"]}
    plain = {"model_type": "jina_embeddings_v3", **{key: config[key] for key in sizes}, "rope_parameters": rope}
    (folder / "config.json").write_text(json.dumps(plain))
    tensors = read_tensors(checkpoint / "model.safetensors")
    merged: Arrays = {}
    for name, values in tensors.items():
        module = name.removesuffix(f"{PARTS}.original")
        if module != name:
            merged[f"{module}.weight"] = _merged(tensors, module, config, task)
        elif PARTS not in name:
            merged[name] = values
    write_safetensors(folder / "model.safetensors", merged, {"format": "pt"})
    return folder


def config_sizes() -> tuple[str, ...]:
    """Keys that both configurations have."""
    return "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"


def _merged(tensors: Arrays, module: str, config: dict[str, Any], task: str | None) -> np.ndarray:
    weight: np.ndarray = tensors[f"{module}{PARTS}.original"].astype(np.float64)
    if task is not None:
        index = config["lora_adaptations"].index(task)
        a, b = (tensors[f"{module}{PARTS}.0.lora_{part}"][index].astype(np.float64) for part in "AB")
        weight = weight + config["lora_alpha"] / config["lora_rank"] * (a @ b if "_embeddings" in module else b @ a)
    return weight.astype(np.float32)
