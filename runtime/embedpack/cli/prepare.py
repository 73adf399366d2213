"""embedpack prepare: cache prepacked graphs, so that a pack loads faster and takes less memory on this host."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.options import add_pack, add_threads, add_variants, chosen_variants
from embedpack.cli.output import add_json, check_output, write_json

if TYPE_CHECKING:
    from embedpack.engine.prepare import PreparedVariant
    from embedpack.pack.folder import Pack

logger = logging.getLogger("embedpack")

SUMMARY = "Cache prepacked graphs for this CPU, and measure the fastest token budget."
EXAMPLES = """\
  embedpack prepare packs/minilm
  embedpack prepare packs/v4 --variant retrieval-int8 --threads 4
  embedpack prepare packs/v4 --cache /srv/cache      (load them with EMBEDPACK_CACHE=/srv/cache)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    add_variants(parser)
    add_threads(parser)
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="cache folder (default: $EMBEDPACK_CACHE, else embedpack/ in the user's cache)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prepare the variants of a pack, and print the results."""
    import msgspec

    from embedpack.engine.prepare import prepare_variant
    from embedpack.host.cores import available_cores
    from embedpack.pack.folder import read_pack

    check_output(options.json, [options.pack], overwrite=options.overwrite)
    pack = read_pack(options.pack)
    names = chosen_variants(pack.manifest, options)
    if not options.variant and not options.weights:
        # Those for GPUs are not prepared unless they are named.
        names = [name for name in names if pack.manifest.variants[name].device == "cpu"] or names
    cache = _cache(options.cache)
    if options.json is None:
        _print_space(pack, names, cache)
    done = []
    for number, name in enumerate(names, 1):
        logger.info("preparing %s, %d of %d", name, number, len(names))
        done.append(prepare_variant(pack, name, options.threads or available_cores(), cache))
        if options.json is None:
            _print(done[-1])
    if options.json is not None:
        write_json(options.json, msgspec.json.encode(done))
    return 0


def _cache(folder: Path | None) -> Path:
    from embedpack.engine.prepared import cache_folder
    from embedpack.errors import InputError
    from embedpack.host.user_cache import CACHE_VARIABLE

    cache = cache_folder() if folder is None else folder.absolute() / "prepared"
    if cache is None:
        raise InputError(f"there is no cache (${CACHE_VARIABLE} is empty, or the user has no home); pass --cache DIR")
    return cache


def _print_space(pack: Pack, names: list[str], cache: Path) -> None:
    """Print an upper bound of the disk space."""
    from embedpack.engine.prepare import disk_bytes, graphs_of

    graphs = {graph.name: graph for name in names for graph in graphs_of(pack, name)}
    needed = sum(disk_bytes(graph.weight_sizes) for graph in graphs.values())
    print(f"{cache}: needs up to {needed / 1e6:,.1f} MB for {', '.join(names)}", flush=True)


def _print(prepared: PreparedVariant) -> None:
    name = prepared.variant
    for graph in prepared.graphs:
        status = f"written in {graph.seconds:.1f} s to" if graph.written else "up to date in"
        if not graph.bytes:
            status = "graph not cached (onnxruntime cannot save 4-bit matrices), token budget in"
        print(f"{name}: {graph.graph}, {graph.bytes / 1e6:,.1f} MB, {status} {graph.folder}")
    speeds = ", ".join(f"{budget}: {speed:,.0f}" for budget, speed in prepared.tokens_per_second.items())
    print(f"{name}: token budget {prepared.token_budget}, {prepared.threads} threads (tokens/s by budget: {speeds})")
