"""embedpack embed: texts, images and PDF pages to vectors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedpack.cli.options import add_pack, add_texts, add_variant, add_vectors, open_embedder, text_options

if TYPE_CHECKING:
    from embedpack.embedder import Embedder
    from embedpack.inputs.files import InputPart
    from embedpack.vectors.embeddings import Embeddings
    from embedpack.vectors.multi_embeddings import MultiEmbeddings

SUMMARY = "Compute vectors of texts, images and PDF pages."
EXAMPLES = """\
  embedpack embed packs/minilm notes.txt -o notes.npz
  embedpack embed packs/minilm docs.jsonl --prompt-name passage --precision 2bit -o docs.safetensors
  echo "how to reset a router" | embedpack embed packs/minilm - --prompt-name query --truncate-dim 128
  embedpack embed packs/v4 notes.txt scan.png report.pdf --task retrieval --prompt-name passage -o all.npz
  embedpack embed packs/v4 report.pdf --task retrieval --multi --precision binary --pool-factor 3 -o pages.npz
  embedpack embed packs/v4 functions.jsonl --adapters switchable --task code -o functions.npz"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument(
        "files",
        nargs="*",
        default=["-"],
        metavar="FILE",
        help="text files, images (.png .jpg .jpeg .webp .gif .bmp .tif .tiff .ppm), PDF; - is standard input (default)",
    )
    add_variant(parser)
    parser.add_argument("--prompt-name", help="prompt of the task, e.g. query or passage (default: the task's default)")
    add_vectors(parser)
    parser.add_argument(
        "--multi", action="store_true", help="multi-vectors: one vector per token, if the pack has them"
    )
    parser.add_argument(
        "--pool-factor",
        type=int,
        default=1,
        metavar="N",
        help="with --multi, for documents: pool similar tokens to about 1/N as many vectors (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="resize larger images to this area in pixels (default: the model's limit)",
    )
    add_texts(parser)
    parser.add_argument(
        "--on-long", default="truncate", help="for texts over the token limit: truncate or error (default: %(default)s)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="output file: .npz, .safetensors or .jsonl (default: JSON lines on standard output)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")


def run(options: argparse.Namespace) -> int:
    """Embed the texts, images and pages of files."""
    from embedpack.errors import InputError
    from embedpack.inputs.files import read_parts
    from embedpack.vectors.embeddings import concatenate
    from embedpack.vectors.multi_embeddings import concatenate_multi
    from embedpack.vectors.writing import is_stream, write_stream, write_vectors

    if options.output is not None:
        _check_output(options.output, options.files, overwrite=options.overwrite)
    if options.multi and options.truncate_dim is not None:
        raise InputError("--truncate-dim cannot be used with --multi: multi-vectors are not truncated")
    if options.pool_factor != 1 and not options.multi:
        raise InputError("--pool-factor needs --multi: only token vectors are pooled")
    parts = read_parts(options.files, text_options(options))
    model = open_embedder(options)
    for part in parts:
        # Before any work is done.
        if part.images and model.pack.manifest.image is None:
            raise InputError(f"{part.source}: {model.pack.folder} reads texts only, no images")
    names = ("prompt_name", "precision", "on_long", "max_pixels", "pool_factor" if options.multi else "truncate_dim")
    chosen: dict[str, Any] = {name: getattr(options, name) for name in names}
    if is_stream(options.output) and not options.multi:
        write_stream(options.output, _encode_parts(model, parts, chosen))
        return 0
    vectors: Embeddings | MultiEmbeddings
    if options.multi:
        vectors = concatenate_multi([model.encode_multi(part.items, **chosen) for part in parts])
    else:
        vectors = concatenate([model.encode(part.items, **chosen) for part in parts])
    write_vectors(options.output, [name for part in parts for name in part.ids], vectors)
    return 0


def _check_output(output: Path, inputs: Sequence[str], *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, exists, or is an input, before any work."""
    from embedpack.errors import InputError
    from embedpack.storage.atomic import check_new_file
    from embedpack.vectors.writing import check_suffix

    check_suffix(output)
    if os.path.lexists(output):
        if output.exists() and any(output.samefile(each) for each in inputs if Path(each).exists()):
            raise InputError(f"{output}: is one of the inputs; write to another file")
        if not overwrite:
            raise InputError(f"{output}: exists; choose another file, or pass --overwrite")
    check_new_file(output)


def _encode_parts(
    model: Embedder, parts: list[InputPart], chosen: dict[str, Any]
) -> Iterator[tuple[list[str], Embeddings]]:
    """Yield ids and vectors, part by part."""
    for part in parts:
        first = 0
        for embeddings in model.encode_iter(part.items, **chosen):
            yield part.ids[first : first + len(embeddings)], embeddings
            first += len(embeddings)
