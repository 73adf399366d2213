"""embedpack embed: texts to vectors."""

from __future__ import annotations

import argparse
from pathlib import Path

from embedpack.commands.options import add_pack, add_texts, add_variant, add_vectors

SUMMARY = "Turn texts into vectors."
EXAMPLES = """\
  embedpack embed packs/minilm notes.txt -o notes.npz
  embedpack embed packs/minilm docs.jsonl --prompt-name passage --precision int8 -o docs.safetensors
  echo "how to reset a router" | embedpack embed packs/minilm - --prompt-name query --truncate-dim 128"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="texts; - is standard input (default)")
    add_variant(parser)
    parser.add_argument("--prompt-name", help="prompt of the task, e.g. query or passage (default: the pack's default)")
    add_vectors(parser)
    add_texts(parser)
    parser.add_argument(
        "--on-long", default="truncate", help="truncate or error: texts over the limit of tokens (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help=".npz, .safetensors or .jsonl (default: JSON lines, printed)"
    )


def run(options: argparse.Namespace) -> int:
    """Embed the texts of a file."""
    from embedpack.embedder import Embedder
    from embedpack.texts_file import read_texts
    from embedpack.vectors_file import check_suffix, write_vectors

    if options.output is not None:
        check_suffix(options.output)
    texts = read_texts(options.file, format=options.format, column=options.column, id_column=options.id_column)
    model = Embedder(options.pack, task=options.task, weights=options.weights, threads=options.threads)
    embeddings = model.encode(
        texts.texts,
        prompt_name=options.prompt_name,
        truncate_dim=options.truncate_dim,
        precision=options.precision,
        on_long=options.on_long,
    )
    write_vectors(options.output, texts.ids, embeddings)
    return 0
