"""Everything that a measurement on a GPU needs, in one command of less than ten minutes.

Makes a random checkpoint with layers of the width of jina-embeddings-v4, exports it with fp16 and int4 weights, and
measures it next to torch and sentence-transformers. Nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.__main__ import main as benchmark
from benchmarks.arguments import add_number, program
from benchmarks.checkpoints.make_qwen2 import make_qwen2
from embedpack import EmbedpackError
from embedpack_export.pipeline import export
from embedpack_export.planning.settings import ExportSettings

EXAMPLES = """examples:
  python -m benchmarks.speed.on_gpu work                 8 layers, 4 GB of disk
  python -m benchmarks.speed.on_gpu work --layers 2 --seconds 0.2 --repetitions 1"""
TEXTS = ("how do I reset a router", "list the files of a folder", "a red door and a blue house")


def make_pack(folder: Path, size: str, layers: int) -> tuple[Path, Path]:
    """Make a checkpoint and its pack below a folder; the paths of both."""
    checkpoint, pack = folder / "checkpoint", folder / "pack"
    make_qwen2(checkpoint, size, layers)
    texts = folder / "calibration.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), "utf-8")
    # Random weights have no rankings to lose, so those of int4 are rounded in the fastest way.
    export(
        ExportSettings(
            checkpoint=checkpoint,
            output=pack,
            weights=("fp16", "int4"),
            device="cuda",
            int4_method="rtn",
            calibrate=texts,
            reference="fp32 graph",
            allow_loss=100,
            overwrite=True,
        )
    )
    return checkpoint, pack


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = program("benchmarks.speed.on_gpu", __doc__, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write the checkpoint and the pack to")
    add_number(parser, "--layers", 8, "number of layers")
    add_number(parser, "--repetitions", 3, "repetitions of every measurement")
    add_number(parser, "--seconds", 1.0, "seconds of calls with a workload", metavar="S")
    parser.add_argument("--name", default="gpu", help="name of the file in benchmarks/results; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        checkpoint, pack = make_pack(options.folder, "wide", options.layers)
    except EmbedpackError as error:
        print(f"on_gpu: {error}", file=sys.stderr)
        return 1
    numbers = ["--repetitions", str(options.repetitions), "--seconds", str(options.seconds)]
    return benchmark(
        ["speed", str(pack), "--device", "cuda", "--checkpoint", str(checkpoint), "--name", options.name, *numbers]
    )


if __name__ == "__main__":
    raise SystemExit(main())
