"""embedpack verify: check that a pack is complete and gives its golden vectors on this host."""

from __future__ import annotations

import argparse

from embedpack.cli.options import add_json, add_pack

SUMMARY = "Check the digest of every file, and compare the vectors of golden inputs with the recorded ones."
EXAMPLES = """\
  embedpack verify packs/minilm
  embedpack verify packs/minilm --json
  embedpack verify packs/v4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_pack(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Check a pack; stop at the first error."""
    import msgspec

    from embedpack.engine.golden import check_golden
    from embedpack.pack.folder import read_pack
    from embedpack.progress import Progress

    pack = read_pack(options.pack)
    with Progress("hashing", len(pack.manifest.files)) as progress:
        for _ in pack.check_files():
            progress.advance(1)
    worst = {name: check_golden(pack, name) for name in pack.manifest.variants}
    if options.json:
        print(msgspec.json.encode({"files": len(pack.manifest.files), "golden": worst}).decode())
    else:
        golden = ", ".join(f"{name} {difference:.0e}" for name, difference in worst.items())
        print(f"{options.pack}: OK; {len(pack.manifest.files)} files; 1 - cosine to the golden vectors: {golden}")
    return 0
