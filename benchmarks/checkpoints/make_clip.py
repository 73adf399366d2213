"""Write a checkpoint in the layout of jina-clip-v2 with random weights, for measurements.

Names, shapes, files and settings are those of the real checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.arguments import add_number, program
from benchmarks.checkpoints.random_tensors import RandomTensor, write_random_tensors
from benchmarks.checkpoints.v3.layout import V3Shape, random_tensors
from benchmarks.checkpoints.v3.tokenizer import make_tokenizer
from benchmarks.checkpoints.v4.configs import write_json
from embedpack import EmbedpackError

TASK = "retrieval.query"
INSTRUCTION = "Represent the query for retrieving evidence documents: "
CODE = "jinaai/jina-clip-implementation--"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Standard deviations of random weights.
WEIGHT, NORM = 0.02, 0.1
README = """---
license: cc-by-nc-4.0
---
These are random weights in the layout of jina-clip-v2; the vectors mean nothing.
"""
EXAMPLES = """examples:
  python -m benchmarks.checkpoints.make_clip tiny-clip                2 megabytes
  python -m benchmarks.checkpoints.make_clip real-clip --size real    1.7 GB, the size of the real model"""


# Text tower of the real model.
REAL_TEXT = V3Shape()


@dataclass(frozen=True)
class ClipShape:
    """Sizes of both towers; all others are the same in every size."""

    text: V3Shape = REAL_TEXT
    layers: int = 24
    head: int = 64
    image: int = 512
    patch: int = 14

    @property
    def gated(self) -> int:
        """Inner channels of the feed-forward networks of the vision tower."""
        return int(self.text.hidden * 2.6667)

    @property
    def patches(self) -> int:
        """Number of whole patches of an image."""
        return (self.image // self.patch) ** 2


SIZES: Mapping[str, ClipShape] = {
    "tiny": ClipShape(V3Shape(layers=2, hidden=64, heads=4, inner=96, vocabulary=4000), layers=2, head=16, image=60),
    "real": ClipShape(),
}


def make_clip(folder: Path, size: str = "tiny", seed: int = 7) -> Path:
    """Write a checkpoint and return its folder.

    Raises:
        EmbedpackError: the folder cannot be written.
    """
    shape = SIZES[size]
    folder.mkdir(parents=True, exist_ok=True)
    write_random_tensors(folder / "model.safetensors", list(clip_tensors(shape)), seed)
    make_tokenizer(shape.text.vocabulary).save(str(folder / "tokenizer.json"))
    for name, content in _files(shape).items():
        write_json(folder / name, content)
    (folder / "README.md").write_text(README, "utf-8")
    return folder


def clip_tensors(shape: ClipShape) -> Iterator[RandomTensor]:
    """Tensors of model.safetensors."""
    for tensor in random_tensors(shape.text, 1.0):
        # The adapter of one task, and no pooler.
        if ".pooler." not in tensor.name:
            sizes = (1, *tensor.shape[1:]) if ".lora_" in tensor.name else tensor.shape
            yield replace(tensor, name=f"text_model.transformer.{tensor.name}", shape=sizes)
    yield RandomTensor("logit_scale", (), 0.0, mean=2.6592)
    yield from (replace(tensor, name=f"vision_model.{tensor.name}") for tensor in _vision_tensors(shape))


def _vision_tensors(shape: ClipShape) -> Iterator[RandomTensor]:
    width, gated = shape.text.hidden, shape.gated
    yield RandomTensor("cls_token", (1, 1, width), WEIGHT)
    yield RandomTensor("pos_embed", (1, shape.patches + 1, width), WEIGHT)
    yield RandomTensor("patch_embed.proj.weight", (width, 3, shape.patch, shape.patch), WEIGHT)
    yield RandomTensor("patch_embed.proj.bias", (width,), WEIGHT)
    for index in range(shape.layers):
        block = f"blocks.{index}"
        linears = dict.fromkeys((f"attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "proj")), (width, width))
        linears |= {"mlp.w1": (gated, width), "mlp.w2": (gated, width), "mlp.w3": (width, gated)}
        biases = {"attn.q_bias": width, "attn.v_bias": width, "attn.proj.bias": width}
        biases |= {f"mlp.{name}.bias": linears[f"mlp.{name}"][0] for name in ("w1", "w2", "w3")}
        yield from (RandomTensor(f"{block}.{name}.weight", sizes, WEIGHT) for name, sizes in linears.items())
        yield from (RandomTensor(f"{block}.{name}", (size,), WEIGHT) for name, size in biases.items())
        for name in ("norm1", "attn.inner_attn_ln", "norm2"):
            yield from _norm(f"{block}.{name}", width)
        yield from _norm(f"{block}.mlp.ffn_ln", gated)
    yield from _norm("norm", width)


def _norm(name: str, size: int) -> Iterator[RandomTensor]:
    yield RandomTensor(f"{name}.weight", (size,), NORM, mean=1.0)
    yield RandomTensor(f"{name}.bias", (size,), NORM)


def model_config(shape: ClipShape) -> dict[str, Any]:
    """Content of config.json."""
    text = shape.text
    real = {} if text == REAL_TEXT else {
        "hidden_size": text.hidden,
        "intermediate_size": text.inner,
        "num_attention_heads": text.heads,
        "num_hidden_layers": text.layers,
        "vocab_size": text.vocabulary,
    }  # fmt: skip
    return {
        "add_projections": False,
        "architectures": ["JinaCLIPModel"],
        "auto_map": {
            "AutoConfig": f"{CODE}configuration_clip.JinaCLIPConfig",
            "AutoModel": f"{CODE}modeling_clip.JinaCLIPModel",
        },
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "matryoshka_dimensions": [*(size for size in (32, 64, 128, 256, 512, 768) if size < text.hidden), text.hidden],
        "model_type": "jina_clip",
        "projection_dim": text.hidden,
        "text_config": {
            "default_instruction_task": None,
            "default_lora_task": TASK,
            "embed_dim": text.hidden,
            "hf_model_config_kwargs": {
                **real,
                "load_trained_adapters": False,
                "lora_adaptations": [TASK],
                "lora_alpha": text.rank,
                "lora_dropout_p": 0.0,
                "lora_main_params_trainable": False,
                "lora_rank": text.rank,
                "task_instructions": {TASK: INSTRUCTION},
                "use_flash_attn": True,
            },
            "hf_model_name_or_path": "jinaai/jina-embeddings-v3",
            "pooler_type": "mean_pooler",
            "proj_bias": False,
            "proj_type": None,
        },
        "torch_dtype": "bfloat16",
        "truncate_dim": None,
        "vision_config": _vision_config(shape),
    }


def _vision_config(shape: ClipShape) -> dict[str, Any]:
    return {
        "embed_dim": shape.text.hidden,
        "fused_layer_norm": False,
        "head_width": shape.head,
        "image_size": shape.image,
        "intp_freq": True,
        "layers": shape.layers,
        "ls_init_value": None,
        "mlp_ratio": 2.6667,
        "naive_swiglu": True,
        "patch_dropout": 0.1,
        "patch_size": shape.patch,
        "post_norm": False,
        "proj_type": None,
        "pt_hw_seq_len": 16,
        "qkv_bias": True,
        "rope_embeddings": True,
        "subln": True,
        "width": shape.text.hidden,
        "x_attention": True,
    }


def _files(shape: ClipShape) -> dict[str, object]:
    """Content of the JSON files by name."""
    return {
        "config.json": model_config(shape),
        "preprocessor_config.json": {
            "fill_color": 0,
            "image_processor_type": "JinaCLIPImageProcessor",
            "interpolation": "bicubic",
            "mean": MEAN,
            "resize_mode": "shortest",
            "size": shape.image,
            "std": STD,
        },
        "modules.json": [
            {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer"},
            {"idx": 1, "name": "normalizer", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "tokenizer_config.json": {
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "mask_token": "<mask>",
            "model_max_length": 8194,
            "pad_token": "<pad>",
            "sep_token": "</s>",
            "tokenizer_class": "XLMRobertaTokenizer",
            "unk_token": "<unk>",
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.checkpoints.make_clip", __doc__, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; files in it are replaced")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="size of the model; default: %(default)s")
    add_number(parser, "--seed", 7, "random seed")
    options = parser.parse_args(arguments)
    try:
        make_clip(options.folder, options.size, options.seed)
    except EmbedpackError as error:
        print(f"make_clip: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
