"""embedpack embed: texts, images and PDF pages to vectors."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.options import (
    add_pack,
    add_texts,
    add_variant,
    add_vectors,
    open_embedder,
    text_file_options,
)
from embedpack.cli.output import add_json
from embedpack.cli.parser import whole_number

if TYPE_CHECKING:
    from embedpack.cli.embed_run import Skipped
    from embedpack.embedder import Embedder
    from embedpack.engine.options import EncodeSettings
    from embedpack.inputs.files import InputPart
    from embedpack.inputs.splitting import Splitting

SUMMARY = "Compute vectors of texts, images and PDF pages."
EXAMPLES = """\
  embedpack embed packs/minilm notes.txt -o notes.npz
  embedpack embed packs/minilm docs.jsonl --precision 2bit -o docs.safetensors
  echo "how to reset a router" | embedpack embed packs/minilm - --prompt-name query
  embedpack embed packs/minilm docs.jsonl.gz table.tsv --on-empty skip --on-error skip -o docs.jsonl
  embedpack embed packs/minilm articles.jsonl --late-chunking --chunk-tokens 128 -o chunks.npz
  embedpack embed packs/v4 notes.txt scan.png report.pdf --task retrieval -o all.npz
  embedpack embed packs/v4 report.pdf --task retrieval --multi --precision binary --pool-factor 3 -o pages.npz
  embedpack embed packs/v4 functions.jsonl --adapters switchable --task code -o functions.npz"""
ON_LONG = ("truncate", "error")
ON_EMPTY = ("error", "skip", "zero")
ON_ERROR = ("stop", "skip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument(
        "files",
        nargs="*",
        default=["-"],
        metavar="FILE",
        help="text files (.txt .md .jsonl .json .csv .tsv .parquet, also .gz), images (.png .jpg .jpeg .webp .gif .bmp "
        ".tif .tiff .ppm), PDF; - is standard input (default)",
    )
    add_variant(parser)
    parser.add_argument(
        "--prompt-name",
        help="prompt of the texts, e.g. query; '' is none (default: that of documents: document, passage or corpus)",
    )
    add_vectors(parser)
    _add_images(parser)
    _add_chunks(parser)
    add_texts(parser)
    _add_policies(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="output file: .npz, .safetensors or .jsonl (default: -, JSON lines on standard output)",
    )
    add_json(parser, content="summary as JSON, with ids of truncated texts, on standard output or in a file")


def _add_images(parser: argparse.ArgumentParser) -> None:
    """Declare --multi, --pool-factor, --max-pixels."""
    parser.add_argument(
        "--multi", action="store_true", help="multi-vectors: one vector per token, if the pack has them"
    )
    parser.add_argument(
        "--pool-factor",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="with --multi: merge similar token vectors of documents, keeping about 1 in N (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=whole_number(1),
        metavar="N",
        help="resize larger images to this area in pixels (default: the model's limit)",
    )


def _add_chunks(parser: argparse.ArgumentParser) -> None:
    """Declare --late-chunking, --chunk-tokens, --chunk-overlap."""
    parser.add_argument(
        "--late-chunking",
        action="store_true",
        help="one vector for each sentence of a text, in the context of the whole text, under the id ID#BEGIN-END "
        "(places in characters); texts may have any length",
    )
    parser.add_argument(
        "--chunk-tokens",
        type=whole_number(1),
        metavar="N",
        help="with --late-chunking: chunks of N tokens, not sentences",
    )
    parser.add_argument(
        "--chunk-overlap",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="with --chunk-tokens: tokens that a chunk shares with the one before (default: %(default)s)",
    )


def _add_policies(parser: argparse.ArgumentParser) -> None:
    """Declare --on-long, --on-empty, --on-error."""
    parser.add_argument(
        "--on-long", choices=ON_LONG, default="truncate", help="texts over the token limit (default: %(default)s)"
    )
    parser.add_argument(
        "--on-empty",
        choices=ON_EMPTY,
        default="error",
        help="records whose text is empty or has no token: stop, leave them out, or write zeros (default: %(default)s)",
    )
    parser.add_argument(
        "--on-error",
        choices=ON_ERROR,
        default="stop",
        help="inputs that cannot be used: stop, or report them and go on (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Embed the texts, images and pages of files."""
    import msgspec

    from embedpack.cli.embed_run import EmbedRun, Skipped
    from embedpack.cli.output import write_json

    output = _checked_output(options)
    splitting = _splitting(options)
    skipped = Skipped(stop=options.on_error == "stop")
    parts = _read(options, skipped)
    model = open_embedder(options)
    settings = _settings(options, model)
    model.check(settings)
    _check_images(model, parts, chunks=splitting is not None)
    summary = EmbedRun(model, settings, parts, skipped, splitting).write(output)
    if options.json is not None:
        write_json(options.json, msgspec.json.encode(summary))
    return 0


def _checked_output(options: argparse.Namespace) -> Path | None:
    """Output file, which can be written; None: standard output."""
    from embedpack.cli.output import STANDARD_OUTPUT, check_output
    from embedpack.errors import OptionError
    from embedpack.vectors.writing import check_suffix

    if options.pool_factor != 1 and not options.multi:
        raise OptionError("--pool-factor needs --multi: only token vectors are pooled")
    output: Path | None = None if options.output == STANDARD_OUTPUT else options.output
    if output is None and options.json == STANDARD_OUTPUT:
        raise OptionError("--json and the vectors cannot both be written to standard output; pass -o, or --json FILE")
    if output is not None:
        check_suffix(output)
    for written in (output, options.json):
        check_output(written, [*options.files, options.pack], overwrite=options.overwrite)
    return output


def _splitting(options: argparse.Namespace) -> Splitting | None:
    """Rule of the chunks; None: no late chunking. OptionError for options that do nothing, or that contradict it."""
    from embedpack.errors import OptionError
    from embedpack.inputs.splitting import Splitting

    if not options.late_chunking:
        if options.chunk_tokens is not None or options.chunk_overlap:
            raise OptionError("--chunk-tokens and --chunk-overlap need --late-chunking")
        return None
    unused = {
        "--multi": options.multi,
        "--on-long error": options.on_long == "error",
        "--on-empty zero": options.on_empty == "zero",
    }
    for option, given in unused.items():
        if given:
            raise OptionError(f"{option} does nothing beside --late-chunking; leave it out")
    if options.chunk_overlap and options.chunk_tokens is None:
        raise OptionError("--chunk-overlap needs --chunk-tokens")
    return Splitting(options.chunk_tokens, options.chunk_overlap)


def _read(options: argparse.Namespace, skipped: Skipped) -> list[InputPart]:
    from dataclasses import replace

    from embedpack.errors import InputError
    from embedpack.inputs.files import read_parts

    for source in options.files:
        if any(map(str.isspace, source)) and not os.path.lexists(source):
            raise InputError(f"{source}: no such file; for a text: echo TEXT | embedpack embed {options.pack} -")
    texts = replace(text_file_options(options), allow_blank=options.on_empty != "error", on_error=skipped.add)
    return read_parts(options.files, texts)


def _settings(options: argparse.Namespace, model: Embedder) -> EncodeSettings:
    from embedpack.engine.options import EncodeSettings
    from embedpack.pack.prompts import document_prompt

    task = options.task or model.task
    prompt_name: str | None = options.prompt_name
    if prompt_name is None and task in model.tasks:
        # Files hold documents; the default prompt of the task may be that of queries.
        prompt_name = document_prompt(model.pack.manifest.tasks[task])
    return EncodeSettings(
        task=task,
        prompt_name=prompt_name,
        truncate_dim=options.truncate_dim,
        precision=options.precision,
        on_long=options.on_long,
        on_empty=options.on_empty,
        max_pixels=options.max_pixels,
        multi=options.multi,
        pool_factor=options.pool_factor,
        late_chunking=options.late_chunking,
    )


def _check_images(model: Embedder, parts: list[InputPart], *, chunks: bool) -> None:
    from embedpack.errors import InputError

    for part in parts:
        if part.images and chunks:
            raise InputError(f"{part.source}: --late-chunking takes texts, no images; embed them in a run of their own")
        if part.images and model.pack.manifest.image is None:
            raise InputError(f"{part.source}: {model.pack.folder} reads texts only, no images")
