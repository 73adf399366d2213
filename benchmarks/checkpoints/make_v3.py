"""Write a checkpoint in the layout of jina-embeddings-v3 with random weights, for tests and measurements.

Names, shapes, types, files and settings are those of the real checkpoint, the adapters of its five tasks included.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import add_number, program
from benchmarks.checkpoints.random_tensors import write_random_tensors
from benchmarks.checkpoints.v3.layout import TASKS, V3Shape, random_tensors
from benchmarks.checkpoints.v3.tokenizer import make_tokenizer
from benchmarks.checkpoints.v4.configs import write_json
from embedpack import EmbedpackError

ALPHA = 1
MAX_TOKENS = 8194
INSTRUCTIONS: Mapping[str, str] = {
    **dict.fromkeys(TASKS, ""),
    "retrieval.query": "Represent the query for retrieving evidence documents: ",
    "retrieval.passage": "Represent the document for retrieval: ",
}
SIZES: Mapping[str, V3Shape] = {
    "tiny": V3Shape(layers=2, hidden=64, heads=4, inner=96, vocabulary=4000),
    "wide": V3Shape(layers=4, vocabulary=20_000),
    "real": V3Shape(),
}
CODE = "jinaai/xlm-roberta-flash-implementation--"
README = """---
license: cc-by-nc-4.0
---
These are random weights in the layout of jina-embeddings-v3; the vectors mean nothing.
"""
EXAMPLES = """examples:
  python -m benchmarks.checkpoints.make_v3 tiny-v3                2 megabytes
  python -m benchmarks.checkpoints.make_v3 wide-v3 --size wide    150 MB: 4 layers, as wide as those of the real model
  python -m benchmarks.checkpoints.make_v3 real-v3 --size real    1.1 GB, the size of the real model"""


def make_v3(folder: Path, size: str = "tiny", seed: int = 7) -> Path:
    """Write a checkpoint and return its folder.

    Raises:
        EmbedpackError: the folder cannot be written.
    """
    shape = SIZES[size]
    tensors = list(random_tensors(shape, ALPHA / shape.rank))
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    write_random_tensors(folder / "model.safetensors", tensors, seed)
    make_tokenizer(shape.vocabulary).save(str(folder / "tokenizer.json"))
    for name, content in _files(shape).items():
        write_json(folder / name, content)
    (folder / "README.md").write_text(README, "utf-8")
    return folder


def model_config(shape: V3Shape) -> dict[str, Any]:
    """Content of config.json, which has no model_type."""
    return {
        "architectures": ["XLMRobertaModel"],
        "attention_probs_dropout_prob": 0.1,
        "auto_map": {
            "AutoConfig": f"{CODE}configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModel": f"{CODE}modeling_lora.XLMRobertaLoRA",
        },
        "bos_token_id": 0,
        "classifier_dropout": None,
        "emb_pooler": None,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.inner,
        "layer_norm_eps": 1e-05,
        "load_trained_adapters": True,
        "lora_adaptations": list(TASKS),
        "lora_alpha": ALPHA,
        "lora_dropout_p": 0.0,
        "lora_main_params_trainable": False,
        "lora_rank": shape.rank,
        "matryoshka_dimensions": [
            *(size for size in (32, 64, 128, 256, 512, 768) if size < shape.hidden),
            shape.hidden,
        ],
        "max_position_embeddings": MAX_TOKENS,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "output_past": True,
        "pad_token_id": 1,
        "position_embedding_type": "rotary",
        "rotary_emb_base": 20000.0,
        "task_instructions": INSTRUCTIONS,
        "torch_dtype": "bfloat16",
        "truncate_dim": None,
        "type_vocab_size": 1,
        "use_cache": True,
        "use_flash_attn": True,
        "vocab_size": shape.vocabulary,
    }


def _files(shape: V3Shape) -> dict[str, object]:
    """Content of the JSON files by name."""
    package = "sentence_transformers.models"
    return {
        "config.json": model_config(shape),
        "modules.json": [
            {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer", "kwargs": ["task"]},
            {"idx": 1, "name": "pooler", "path": "1_Pooling", "type": f"{package}.Pooling"},
            {"idx": 2, "name": "normalizer", "path": "2_Normalize", "type": f"{package}.Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": shape.hidden, "pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {
            "prompts": INSTRUCTIONS,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "tokenizer_config.json": {
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "mask_token": "<mask>",
            "model_max_length": MAX_TOKENS,
            "pad_token": "<pad>",
            "sep_token": "</s>",
            "tokenizer_class": "XLMRobertaTokenizer",
            "unk_token": "<unk>",
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.checkpoints.make_v3", __doc__, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; files in it are replaced")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="size of the model; default: %(default)s")
    add_number(parser, "--seed", 7, "random seed")
    options = parser.parse_args(arguments)
    try:
        make_v3(options.folder, options.size, options.seed)
    except EmbedpackError as error:
        print(f"make_v3: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
