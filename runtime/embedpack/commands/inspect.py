"""embedpack inspect: what a pack holds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from embedpack.commands.options import add_json, add_pack

if TYPE_CHECKING:
    from embedpack.pack import Manifest

SUMMARY = "Show what a pack holds: tasks, variants, sizes, accuracy, licence."
EXAMPLES = """\
  embedpack inspect packs/minilm
  embedpack inspect packs/minilm --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the manifest."""
    import msgspec

    from embedpack.pack import read_pack

    manifest = read_pack(options.pack).manifest
    if options.json:
        print(msgspec.json.encode(manifest).decode())
    else:
        _print(manifest)
    return 0


def _print(manifest: Manifest) -> None:
    from embedpack.codes import DTYPES, PRECISIONS, code_width

    restricted = ", non-commercial" if manifest.license.non_commercial else ""
    print(f"{manifest.name}  ({manifest.family}, pack format {manifest.format})")
    print(f"license     {manifest.license.id or 'not stated'}{restricted}")
    print(f"vectors     {manifest.dimensions} dimensions, may be cut to {', '.join(map(str, manifest.truncate_dims))}")
    print(f"texts       up to {manifest.text.max_tokens} tokens, {manifest.pooling} pooling")
    for name, task in manifest.tasks.items():
        prompts = ", ".join(f"{key} = {text!r}" for key, text in task.prompts.items()) or "no prompts"
        merged = "no adapter" if task.adapter is None else f"{task.adapter.modules} matrices merged"
        print(f"task        {name}: {prompts}; {merged}")
    for name, variant in manifest.variants.items():
        files = {variant.graph, variant.graph_without_vnni, *variant.external_data} - {None}
        size = sum(manifest.files[file].bytes for file in files if file is not None) / 1e6
        close = variant.accuracy
        print(
            f"variant     {name:<20} {size:8.1f} MB   cosine to {close.reference}: mean {close.cosine_mean:.5f}, "
            f"1st percentile {close.cosine_p1:.5f}, lowest {close.cosine_min:.5f} ({close.texts} texts)"
        )
    for precision in PRECISIONS:
        if precision != "binary" or manifest.dimensions % 8 == 0:
            width = code_width(precision, manifest.dimensions) * DTYPES[precision]().itemsize
            print(f"precision   {precision:<20} {width:8} bytes a vector")
