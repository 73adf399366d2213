"""Write an encoder with random weights in the size that transformers' configuration has by default.

Time and memory of a text depend on sizes alone, so long texts are measured without the weights of a model.
"""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel

from benchmarks.arguments import add_number, program
from benchmarks.checkpoints.v4.configs import write_json
from embedpack import EmbedpackError

FAMILIES = ("eurobert", "gte", "modernbert", "nomic_bert", "xlm-roberta")
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
LONGEST = 8192
# A few texts for the export: the shipped ones are long in letters.
CALIBRATION = "calibration.jsonl"
EXAMPLES = """examples:
  python -m benchmarks.checkpoints.make_encoder gte packs/source-gte            12 layers of 768 channels, 450 MB
  python -m benchmarks.checkpoints.make_encoder modernbert packs/source-modernbert"""


def make_encoder(family: str, folder: Path, layers: int = 12, seed: int = 7) -> Path:
    """Write a checkpoint that reads texts of 8,192 tokens, with mean pooling and a token for each letter."""
    words = [*SPECIALS, *string.ascii_letters, *string.digits, *string.punctuation]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens(list(SPECIALS))
    # The position table of xlm-roberta has rows for padding before the first.
    sizes = {"vocab_size": len(words), "max_position_embeddings": LONGEST + 2, "num_hidden_layers": layers}
    config = AutoConfig.for_model(family, pad_token_id=1, **sizes)
    torch.manual_seed(seed)
    auto_model: Any = AutoModel  # transformers leaves this function untyped
    auto_model.from_config(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"})
    lines = [json.dumps({"text": text}) + "\n" for text in ("reset a router", "list files", "a red door")]
    (folder / CALIBRATION).write_text("".join(lines), "utf-8")
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.checkpoints.make_encoder", __doc__ or "", EXAMPLES)
    parser.add_argument("family", choices=FAMILIES, help="architecture, at the sizes of its default configuration")
    parser.add_argument("folder", type=Path, help="folder to write")
    add_number(parser, "--layers", 12, "number of layers")
    options = parser.parse_args(arguments)
    try:
        print(f"wrote {make_encoder(options.family, options.folder, options.layers)}")
    except EmbedpackError as error:
        print(f"make_encoder: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
