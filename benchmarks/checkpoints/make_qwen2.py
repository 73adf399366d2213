"""Write a Qwen2 checkpoint with random weights: layers of the size of jina-embeddings-v4's decoder, but few.

Other programs can load it, so the speed of decoders is compared on it: a layer costs what one of the real model costs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.arguments import add_number, program
from benchmarks.checkpoints.v4.configs import sorted_decoder_config, tokenizer_config, write_json
from benchmarks.checkpoints.v4.layout import base_entries
from benchmarks.checkpoints.v4.shape import REAL, REAL_SPREAD, TINY, TINY_SPREAD, TextShape
from benchmarks.checkpoints.v4.stream import Tensor, write_tensors
from benchmarks.checkpoints.v4.tokenizer import fill_tokenizer, train_tokenizer
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
    _write_configs(folder, text, tokenizer.ids)
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _write_configs(folder: Path, text: TextShape, ids: Mapping[str, int]) -> None:
    model = {
        "architectures": ["Qwen2Model"],
        "model_type": "qwen2",
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        **sorted_decoder_config(text, {"torch_dtype": "bfloat16"}),
    }
    tokenizer = tokenizer_config(ids)
    del tokenizer["processor_class"]
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": text.hidden, "pooling_mode_mean_tokens": True}
    write_json(folder / "config.json", model)
    write_json(folder / "tokenizer_config.json", tokenizer)
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", pooling)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.checkpoints.make_qwen2", __doc__, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; files in it are replaced")
    parser.add_argument(
        "--size", choices=("tiny", "wide"), default="wide", help="width of the layers; default: %(default)s"
    )
    add_number(parser, "--layers", 4, "number of layers")
    add_number(parser, "--seed", 7, "random seed")
    options = parser.parse_args(arguments)
    try:
        make_qwen2(options.folder, options.size, options.layers, options.seed)
    except EmbedpackError as error:
        print(f"make_qwen2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
