"""Write a checkpoint in the layout of jina-embeddings-v5-text with random weights: as wide as the real one, few layers.

A layer costs what one of the real model costs, with the adapters of its four tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arguments import add_number, program
from benchmarks.checkpoints.random_tensors import RandomTensor, write_random_tensors
from benchmarks.checkpoints.v4.configs import write_json
from benchmarks.checkpoints.v4.tokenizer import train_tokenizer
from embedpack import EmbedpackError

TASKS = ("retrieval", "text-matching", "clustering", "classification")
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK = 32
# Standard deviations of random weights; an adapter changes a matrix by a fiftieth.
WEIGHT, NORM, UPDATE = 0.02, 0.1, 0.02
EXAMPLES = """examples:
  python -m benchmarks.checkpoints.make_v5 small packs/source-v5-small    4 layers of Qwen3-0.6B, 190 MB
  python -m benchmarks.checkpoints.make_v5 nano packs/source-v5-nano      4 layers of EuroBERT-210M, 100 MB"""


@dataclass(frozen=True)
class V5Shape:
    """Sizes of the backbone; `qk_norm`: that of Qwen3, not of EuroBERT."""

    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    max_tokens: int
    epsilon: float
    theta: float
    qk_norm: bool

    def linears(self) -> dict[str, tuple[int, int]]:
        """Outputs and inputs of the linear layers of a layer, by name."""
        queries, values = self.heads * self.head_size, self.kv_heads * self.head_size
        return {
            "self_attn.q_proj": (queries, self.hidden),
            "self_attn.k_proj": (values, self.hidden),
            "self_attn.v_proj": (values, self.hidden),
            "self_attn.o_proj": (self.hidden, queries),
            "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
        }

    def config(self) -> dict[str, Any]:
        """Keys of config.json that the sizes and the backbone decide."""
        own = {"head_dim": self.head_size, "tie_word_embeddings": True} if self.qk_norm else {"is_decoder": False}
        return {
            **own,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "max_position_embeddings": self.max_tokens,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.epsilon,
            "rope_theta": self.theta,
        }


SHAPES: Mapping[str, V5Shape] = {
    "small": V5Shape(1024, 16, 8, 128, 3072, 32_768, 1e-6, 3_500_000, qk_norm=True),
    "nano": V5Shape(768, 12, 12, 64, 3072, 8192, 1e-5, 1_000_000, qk_norm=False),
}


def make_v5(folder: Path, size: str, layers: int = 4, seed: int = 7) -> Path:
    """Write a checkpoint and return its folder.

    Raises:
        EmbedpackError: the folder cannot be written.
    """
    shape, tokenizer = SHAPES[size], train_tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    write_random_tensors(folder / "model.safetensors", list(_backbone(shape, layers, tokenizer.rows)), seed)
    for number, task in enumerate(TASKS):
        adapter = folder / "adapters" / task
        adapter.mkdir(parents=True, exist_ok=True)
        write_random_tensors(adapter / "adapter_model.safetensors", list(_adapter(shape, layers)), seed + 1 + number)
        write_json(adapter / "adapter_config.json", _adapter_config())
    end = tokenizer.ids["<|endoftext|>"]
    config = {
        "architectures": ["JinaEmbeddingsV5Model"],
        "model_type": "jina_embeddings_v5",
        "task_names": list(TASKS),
        "hidden_act": "silu",
        "num_hidden_layers": layers,
        "pad_token_id": end,
        "vocab_size": tokenizer.rows,
        **shape.config(),
    }
    write_json(folder / "config.json", config)
    names = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    write_json(folder / "tokenizer_config.json", {**names, "model_max_length": shape.max_tokens})
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _backbone(shape: V5Shape, layers: int, vocabulary: int) -> Iterator[RandomTensor]:
    yield RandomTensor("embed_tokens.weight", (vocabulary, shape.hidden), WEIGHT)
    for index in range(layers):
        for name, size in shape.linears().items():
            yield RandomTensor(f"layers.{index}.{name}.weight", size, WEIGHT)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield RandomTensor(f"layers.{index}.{norm}.weight", (shape.hidden,), NORM, mean=1.0)
        for norm in ("q_norm", "k_norm") if shape.qk_norm else ():
            yield RandomTensor(f"layers.{index}.self_attn.{norm}.weight", (shape.head_size,), NORM, mean=1.0)
    yield RandomTensor("norm.weight", (shape.hidden,), NORM, mean=1.0)


def _adapter(shape: V5Shape, layers: int) -> Iterator[RandomTensor]:
    """Factors whose product has the standard deviation UPDATE x WEIGHT."""
    deviation = (UPDATE * WEIGHT) ** 0.5 / RANK**0.25
    for index in range(layers):
        for name, (outputs, inputs) in shape.linears().items():
            module = f"base_model.model.layers.{index}.{name}"
            yield RandomTensor(f"{module}.lora_A.weight", (RANK, inputs), deviation)
            yield RandomTensor(f"{module}.lora_B.weight", (outputs, RANK), deviation)


def _adapter_config() -> dict[str, Any]:
    return {
        "bias": "none",
        "lora_alpha": RANK,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": list(LINEARS),
        "task_type": "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.checkpoints.make_v5", __doc__, EXAMPLES)
    parser.add_argument("size", choices=SHAPES, help="backbone: Qwen3 (small) or EuroBERT (nano)")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; files in it are replaced")
    add_number(parser, "--layers", 4, "number of layers")
    add_number(parser, "--seed", 7, "random seed")
    options = parser.parse_args(arguments)
    try:
        make_v5(options.folder, options.size, options.layers, options.seed)
    except EmbedpackError as error:
        print(f"make_v5: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
