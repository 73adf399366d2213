"""embedpack verify: check that a pack is complete and gives its golden vectors on this host."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.cli.options import add_pack
from embedpack.cli.output import add_json, check_output, write_json

if TYPE_CHECKING:
    from embedpack.pack.folder import Pack
    from embedpack.pack.variants import Device

SUMMARY = "Check the digest of every file and prepacked graph, and compare golden vectors with the recorded ones."
MEASURE = "1 - cosine to the golden vectors"
EXAMPLES = """\
  embedpack verify packs/minilm
  embedpack verify packs/minilm --json
  embedpack verify packs/v4 --device cuda"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="device of the golden vectors; cuda: of the variants for GPUs alone (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Check a pack; stop at the first error."""
    import msgspec

    from embedpack.engine.devices import choose_device
    from embedpack.engine.golden import check_golden
    from embedpack.engine.prepared import cache_folder
    from embedpack.pack.folder import read_pack
    from embedpack.progress import Progress

    check_output(options.json, [options.pack], overwrite=options.overwrite)
    pack = read_pack(options.pack)
    device = choose_device(pack, options.device, None, None)
    names = _variants(pack, device)
    with Progress("hashing", len(pack.manifest.files)) as progress:
        for _ in pack.check_files():
            progress.advance(1)
    worst = {name: check_golden(pack, name, device=device) for name in names}
    cache = cache_folder()
    prepared = (
        0
        if cache is None or device == "cuda"
        else sum(_check_prepared(pack, name, cache) for name in pack.manifest.variants)
    )
    files = len(pack.manifest.files)
    if options.json is not None:
        write_json(options.json, msgspec.json.encode({"files": files, "prepared": prepared, "golden": worst}))
    else:
        golden = ", ".join(f"{name} {difference:.0e}" for name, difference in worst.items())
        cached = f" and {prepared} prepacked graphs" if prepared else ""
        measure = "difference from the golden scores" if pack.manifest.kind == "reranker" else MEASURE
        print(f"{options.pack}: OK; {files} files{cached}; {measure}: {golden}")
    return 0


def _variants(pack: Pack, device: Device) -> list[str]:
    """All variants on a CPU, those for GPUs on a GPU; OptionError if there are none."""
    from embedpack.errors import OptionError

    variants = pack.manifest.variants
    names = [name for name in variants if device == "cpu" or variants[name].device == device]
    if not names:
        raise OptionError(f"{pack.folder}: has no variant for GPUs; leave out --device cuda")
    return names


def _check_prepared(pack: Pack, variant: str, cache: Path) -> int:
    """Check the prepacked graphs of a variant in the cache; return their number."""
    from embedpack.engine.golden import check_golden
    from embedpack.engine.prepare import graphs_of
    from embedpack.engine.prepared import check_prepared
    from embedpack.errors import PackError

    try:
        number = sum(check_prepared(cache, graph.identity) is not None for graph in graphs_of(pack, variant))
        if number:
            check_golden(pack, variant, cache)
    except PackError as cause:
        raise PackError(f"{cause}; the prepacked graph is damaged: run embedpack prepare again") from cause
    return number
