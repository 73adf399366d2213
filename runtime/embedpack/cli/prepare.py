"""embedpack prepare: make a pack load faster, and take less memory, on this host."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.options import add_json, add_pack

if TYPE_CHECKING:
    from embedpack.engine.prepare import PreparedVariant
    from embedpack.pack.folder import Pack

SUMMARY = "Save what loading a pack computes, and measure the fastest batches, for this host."
EXAMPLES = """\
  embedpack prepare packs/minilm
  embedpack prepare packs/v4 --variant retrieval-int8 --threads 4
  embedpack prepare packs/v4 --cache /srv/cache      (programs find it with EMBEDPACK_CACHE=/srv/cache)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument("--variant", action="append", metavar="V", help="may be repeated (default: all of the pack)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of the measurement (default: the cores this process may use)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where to write (default: $EMBEDPACK_CACHE, else embedpack/ in the user's cache)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prepare the variants of a pack, and say what became of them."""
    import msgspec

    from embedpack.engine.prepare import prepare_variant
    from embedpack.errors import InputError, unknown
    from embedpack.host.cores import available_cores
    from embedpack.pack.folder import read_pack

    pack = read_pack(options.pack)
    names = options.variant or list(pack.manifest.variants)
    for name in names:
        if name not in pack.manifest.variants:
            raise InputError(unknown("variant", name, pack.manifest.variants))
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads is {options.threads}; it must be at least 1")
    cache = _cache(options.cache)
    if not options.json:
        _tell_space(pack, names, cache)
    done = []
    for name in names:
        done.append(prepare_variant(pack, name, options.threads or available_cores(), cache))
        if not options.json:
            _tell(done[-1])
    if options.json:
        print(msgspec.json.encode(done).decode())
    return 0


def _cache(chosen: Path | None) -> Path:
    from embedpack.engine.prepared import CACHE_VARIABLE, cache_folder
    from embedpack.errors import InputError

    found = cache_folder() if chosen is None else chosen.absolute() / "prepared"
    if found is None:
        raise InputError(f"there is no cache (${CACHE_VARIABLE} is empty, or the user has no home); pass --cache DIR")
    return found


def _tell_space(pack: Pack, names: list[str], cache: Path) -> None:
    """Say beforehand how much disk it takes."""
    from embedpack.engine.prepare import disk_bytes, graphs_of

    graphs = {graph.name: graph for name in names for graph in graphs_of(pack, name)}
    needed = sum(disk_bytes(graph.weights) for graph in graphs.values())
    print(f"{cache}: needs up to {needed / 1e6:,.1f} MB for {', '.join(names)}", flush=True)


def _tell(done: PreparedVariant) -> None:
    for graph in done.graphs:
        what = f"written in {graph.seconds:.1f} s" if graph.written else "was there"
        if not graph.bytes:
            what = "not saved, onnxruntime cannot save products of 4-bit blocks; batches"
        print(f"{done.variant}: {graph.graph}, {graph.bytes / 1e6:,.1f} MB, {what}: {graph.folder}")
    speeds = ", ".join(f"{budget}: {speed:,.0f}" for budget, speed in done.tokens_per_second.items())
    print(
        f"{done.variant}: batches of {done.token_budget} tokens, {done.threads} threads (tokens/s by budget: {speeds})"
    )
