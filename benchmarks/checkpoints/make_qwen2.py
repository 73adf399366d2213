"""Write a Qwen2 checkpoint with random weights: layers of the size of jina-embeddings-v4's decoder, but few.

Other programs can load it, so the speed of decoders is compared on it: a layer costs what one of the real model costs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.checkpoints.v4.configs import tokenizer_config
from benchmarks.checkpoints.v4.layout import base_entries
from benchmarks.checkpoints.v4.shape import REAL, REAL_SPREAD, TINY, TINY_SPREAD, TextShape
from benchmarks.checkpoints.v4.stream import Tensor, write_tensors
from benchmarks.checkpoints.v4.tokenizer import V4Tokenizer, fill_tokenizer, train_tokenizer
from benchmarks.checkpoints.v4.values import RandomValues
from embedpack import EmbedpackError
from embedpack.progress import Progress

EXAMPLES = """examples:
  python -m benchmarks.checkpoints.make_qwen2 decoder              1.2 GB, the width of jina-embeddings-v4 with 4 layers
  python -m benchmarks.checkpoints.make_qwen2 tiny --size tiny     half a megabyte"""


def make_qwen2(folder: Path, size: str = "wide", layers: int = 4, seed: int = 7) -> Path:
    """Write a checkpoint with mean pooling and return its folder.

    Raises:
        EmbedpackError: the folder cannot be written.
    """
    tiny = size == "tiny"
    shape = TINY if tiny else REAL
    text = replace(shape.text, layers=layers)
    tokenizer = train_tokenizer() if tiny else fill_tokenizer()
    values = RandomValues(seed, TINY_SPREAD if tiny else REAL_SPREAD)
    entries = [
        entry for entry in base_entries(replace(shape, text=text), projector=False) if entry.name.startswith("model.")
    ]
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    with Progress("writing", len(entries)) as progress:
        tensors = [Tensor(entry.name, entry.shape, "BF16", partial(values.chunks, entry)) for entry in entries]
        write_tensors(folder / "model.safetensors", tensors, progress)
    _write_json(folder / "config.json", _config(text, tokenizer))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer))
    _write_json(folder / "modules.json", _modules())
    _write_json(folder / "1_Pooling" / "config.json", _pooling(text))
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _config(text: TextShape, tokenizer: V4Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2Model"],
        "model_type": "qwen2",
        "bos_token_id": tokenizer.ids["<|endoftext|>"],
        "eos_token_id": tokenizer.ids["<|im_end|>"],
        "pad_token_id": tokenizer.ids["<|endoftext|>"],
        "hidden_act": "silu",
        "hidden_size": text.hidden,
        "intermediate_size": text.inner,
        "max_position_embeddings": text.max_positions,
        "num_attention_heads": text.heads,
        "num_hidden_layers": text.layers,
        "num_key_value_heads": text.kv_heads,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": text.vocabulary,
    }


def _tokenizer_config(tokenizer: V4Tokenizer) -> dict[str, Any]:
    config = tokenizer_config(tokenizer.ids)
    del config["processor_class"]
    return config


def _modules() -> list[dict[str, Any]]:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    return [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]


def _pooling(text: TextShape) -> dict[str, Any]:
    return {"word_embedding_dimension": text.hidden, "pooling_mode_mean_tokens": True}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkpoints.make_qwen2",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; files in it are replaced")
    parser.add_argument(
        "--size", choices=("tiny", "wide"), default="wide", help="width of the layers; default: %(default)s"
    )
    parser.add_argument("--layers", type=int, default=4, metavar="N", help="number of layers; default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="random seed; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        make_qwen2(options.folder, options.size, options.layers, options.seed)
    except EmbedpackError as error:
        print(f"make_qwen2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
