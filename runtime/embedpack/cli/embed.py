"""embedpack embed: texts, images and PDF pages to vectors."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.embed_options import add_arguments
from embedpack.cli.options import open_embedder, text_file_options

if TYPE_CHECKING:
    from embedpack.cli.embed_run import Skipped
    from embedpack.corpus.journal import Run
    from embedpack.embedder import Embedder
    from embedpack.engine.options import EncodeSettings
    from embedpack.inputs.files import InputPart
    from embedpack.inputs.splitting import Splitting

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]

SUMMARY = "Compute vectors of texts, images and PDF pages."
EXAMPLES = """\
  embedpack embed packs/minilm notes.txt -o notes.npz
  embedpack embed packs/minilm docs.jsonl --precision 2bit -o docs.safetensors
  echo "how to reset a router" | embedpack embed packs/minilm - --prompt-name query
  embedpack embed packs/minilm docs.jsonl.gz table.tsv --on-empty skip --on-error skip -o docs.jsonl
  embedpack embed packs/minilm articles.jsonl --late-chunking --chunk-tokens 128 -o chunks.npz
  embedpack embed packs/minilm corpus.jsonl.gz --shard-size 100000 --resume -o corpus.npz
  embedpack embed packs/v4 notes.txt scan.png report.pdf --task retrieval -o all.npz
  embedpack embed packs/v4 report.pdf --task retrieval --multi --precision binary --pool-factor 3 -o pages.npz
  embedpack embed packs/v4 functions.jsonl --adapters switchable --task code -o functions.npz"""


def run(options: argparse.Namespace) -> int:
    """Embed the texts, images and pages of files."""
    import msgspec

    from embedpack.cli.embed_run import EmbedRun, Skipped
    from embedpack.cli.embed_shards import Shards
    from embedpack.cli.output import write_json

    output = _checked_output(options)
    splitting = _splitting(options)
    skipped = Skipped(stop=options.on_error == "stop")
    parts = _read(options, skipped)
    model = open_embedder(options)
    settings = _settings(options, model)
    model.check(settings)
    _check_images(model, parts, chunks=splitting is not None)
    embed_run = EmbedRun(model, settings, parts, skipped, splitting)
    if options.shard_size is None:
        summary = embed_run.write(output)
    else:
        shards = Shards.open(options.output, _corpus_run(options, model, settings, parts), resume=options.resume)
        summary = embed_run.write_shards(shards)
    if options.json is not None:
        write_json(options.json, msgspec.json.encode(summary))
    return 0


def _checked_output(options: argparse.Namespace) -> Path | None:
    """Output file, which can be written; None: standard output."""
    from embedpack.cli.embed_shards import check_shards
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
    inputs = [*options.files, options.pack]
    _check_shard_options(options, output)
    if options.shard_size is None:
        check_output(output, inputs, overwrite=options.overwrite)
    else:
        check_shards(options.output, inputs, overwrite=options.overwrite, resume=options.resume)
    check_output(options.json, inputs, overwrite=options.overwrite)
    return output


def _check_shard_options(options: argparse.Namespace, output: Path | None) -> None:
    from embedpack.errors import OptionError

    if options.shard_size is not None and output is None:
        raise OptionError("--shard-size needs -o: each shard is a file")
    if options.resume and options.shard_size is None:
        raise OptionError("--resume needs --shard-size: only a run in shards can go on")
    if options.resume and options.overwrite:
        raise OptionError("--resume keeps the shards that are done, --overwrite removes them; pass one of them")


def _corpus_run(options: argparse.Namespace, model: Embedder, settings: EncodeSettings, parts: list[InputPart]) -> Run:
    """Everything that decides the content of the shards."""
    import msgspec

    from embedpack.corpus.fingerprint import fingerprint
    from embedpack.corpus.journal import Run
    from embedpack.pack.digests import describe_file
    from embedpack.pack.manifest import MANIFEST_NAME

    chunks = {name: getattr(options, name) for name in ("chunk_tokens", "chunk_overlap")}
    return Run(
        pack=describe_file(model.pack.folder / MANIFEST_NAME).sha256,
        variant=model.variant,
        settings=msgspec.to_builtins(settings._asdict()) | chunks | {"format": options.output.suffix},
        inputs=fingerprint(options.files, parts),
        shard_size=options.shard_size,
    )


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
