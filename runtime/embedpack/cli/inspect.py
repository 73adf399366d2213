"""embedpack inspect: the contents of a pack."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.options import add_pack
from embedpack.cli.output import add_json, check_output, write_json

if TYPE_CHECKING:
    from embedpack.pack.manifest import Check, CodeCalibration, Manifest, Task, Variant

SUMMARY = "Show the contents of a pack: tasks, images, codes, variants, adapters, sizes, accuracy, licence."
EXAMPLES = """\
  embedpack inspect packs/minilm
  embedpack inspect packs/minilm --json
  embedpack inspect packs/v4"""

MEGABYTE = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the manifest."""
    import msgspec

    from embedpack.pack.folder import read_pack

    check_output(options.json, [options.pack], overwrite=options.overwrite)
    manifest = read_pack(options.pack).manifest
    if options.json is not None:
        write_json(options.json, msgspec.json.encode(manifest))
    else:
        _print(options.pack, manifest)
    return 0


def _print(folder: Path, manifest: Manifest) -> None:
    restricted = ", non-commercial" if manifest.license.non_commercial else ""
    print(f"{manifest.name}  ({manifest.family}, pack format {manifest.format})")
    print(f"license     {manifest.license.id or 'not stated'}{restricted}")
    dims = ", ".join(map(str, manifest.truncate_dims[:-1]))
    print(f"vectors     {manifest.dimensions} dimensions ({f'truncate_dim {dims}' if dims else 'cannot be truncated'})")
    print(f"texts       up to {manifest.text.max_tokens} tokens, {manifest.pooling} pooling")
    if manifest.export.text_tokens:
        print(f"            parsed in texts too: {', '.join(map(repr, manifest.export.text_tokens))}")
    _print_images(manifest)
    for name, task in manifest.tasks.items():
        adapter = "no adapter" if task.adapter is None else f"adapter of {task.adapter.modules} matrices"
        print(f"task        {name}: {adapter}")
        _print_prompts(task)
        _print_codes("codes", name, task.codes)
        if task.token_codes is not None:
            _print_codes("tokens", name, task.token_codes)
    for name, variant in manifest.variants.items():
        _print_variant(manifest, name, variant)
    _print_sizes(manifest)
    if manifest.report is None:
        print("report      none (export ran without a check)")
    else:
        print(f"report      {folder / manifest.report.page}")


def _print_prompts(task: Task) -> None:
    """Print the prompts of a task, and those of queries, of documents, and of calls that name none."""
    from embedpack.pack.prompts import document_prompt, query_prompt

    if not task.prompts:
        print("  prompt    none")
        return
    for name, text in task.prompts.items():
        print(f"  prompt    {name:<20} {text!r}")
    print(
        f"  prompts   default {task.default_prompt_name or 'none'}, queries {query_prompt(task) or 'none'}, "
        f"documents and files {document_prompt(task) or 'none'}"
    )


def _print_codes(label: str, task: str, codes: CodeCalibration) -> None:
    """Print the steps that calibration kept, and the recall of the codes with and without them."""
    steps = " and ".join(codes.kept) or "no center, no rotation"
    print(f"{label:<11} {task}: {steps}, calibrated on {codes.texts} inputs")
    for tried, recall_at_10 in codes.agreement.items():
        recall = ", ".join(f"{precision} {100 * share:.1f} %" for precision, share in recall_at_10.items())
        print(f"  recall@10 {tried:<20} {recall}")


def _print_images(manifest: Manifest) -> None:
    image = manifest.image
    if image is None:
        return
    print(f"images      {image.min_pixels} to {image.max_pixels} pixels; other sizes are resized to these limits")
    for weights, graph in manifest.vision.items():
        size = manifest.bytes_of(graph.graph_files) / MEGABYTE
        print(f"vision      {weights:<20} {size:8.1f} MB")


def _print_variant(manifest: Manifest, name: str, variant: Variant) -> None:
    size = manifest.bytes_of(variant.graph_files) / MEGABYTE
    close = variant.accuracy
    print(
        f"variant     {name:<20} {size:8.1f} MB   cosine to {close.reference}: mean {close.cosine_mean:.5f}, "
        f"1st percentile {close.cosine_p1:.5f}, lowest {close.cosine_min:.5f} ({close.texts} inputs)"
    )
    if close.tokens is not None:
        print(
            f"{'':<45}token vectors: mean {close.tokens.cosine_mean:.5f}, "
            f"1st percentile {close.tokens.cosine_p1:.5f} ({close.tokens.tokens} tokens)"
        )
    for task, check in variant.checks.items():
        print(f"  check     {task:<20} {_describe(check)}")
    for task, file in variant.adapter_files.items():
        print(f"  adapter   {task:<20} {manifest.files[file].bytes / MEGABYTE:8.1f} MB   {file}")


def _describe(check: Check) -> str:
    """Result of the accuracy check of a variant, with its figures."""
    if check.ranking_loss is None or check.ranking_loss_95 is None:
        close = f"cosine to {check.reference} {check.cosine_mean:.5f}"
        return f"{check.verdict}: {check.texts} texts are too few for a ranking; {close}"
    low, high = check.ranking_loss_95
    return (
        f"{check.verdict}: loss of {check.ranking_loss:.2f} points of nDCG@10 against {check.reference} (95 % interval "
        f"{low:.2f} to {high:.2f}), budget {check.budget:.2f}; {check.texts} texts"
    )


def _print_sizes(manifest: Manifest) -> None:
    """Print the bytes of a single vector, a token vector, and a multi-vector of the largest image, by precision."""
    for precision, size in _sizes(manifest.dimensions):
        print(f"precision   {precision:<20} {size:8} bytes per vector")
    if manifest.multi_vector_dimensions is None:
        return
    tokens = None if manifest.image is None else manifest.image.max_tokens
    image = "" if tokens is None else f"; the largest image has {tokens} tokens"
    print(f"multi       {manifest.multi_vector_dimensions} dimensions per token{image}")
    for precision, size in _sizes(manifest.multi_vector_dimensions):
        page = "" if tokens is None else f"  {tokens * size:10} bytes for the largest image"
        print(f"precision   {precision:<20} {size:8} bytes per token{page}")


def _sizes(dimensions: int) -> list[tuple[str, int]]:
    """Precisions that allow this number of dimensions, with the bytes of a vector."""
    from embedpack.vectors.bit_packing import fills_bytes
    from embedpack.vectors.codes import DTYPES, PRECISIONS, code_width, is_low_bit

    fitting = [name for name in PRECISIONS if not is_low_bit(name) or fills_bytes(name, dimensions)]
    return [(name, code_width(name, dimensions) * DTYPES[name]().itemsize) for name in fitting]
