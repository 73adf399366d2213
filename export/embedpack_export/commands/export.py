"""embedpack export: a checkpoint and its adapters to a pack."""

from __future__ import annotations

import argparse
from pathlib import Path

from embedpack.errors import InputError, MissingExtraError

SUMMARY = "Merge adapters into a checkpoint and write a pack."
EXAMPLES = """\
  embedpack export models/all-MiniLM-L6-v2 -o packs/minilm
  embedpack export models/all-MiniLM-L6-v2 -o packs/minilm --adapter retrieval=adapters --weights int8
  embedpack export models/multilingual-e5-small -o packs/e5 --pooling mean --weights int8 --weights int4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder with config.json and safetensors")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PACK", help="folder to write")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="TASK=DIR", help="PEFT adapter of a task; may be repeated"
    )
    parser.add_argument(
        "--weights",
        action="append",
        choices=("fp32", "int8", "int4"),
        help="format of the matrices; may be repeated (default: fp32 and int8)",
    )
    parser.add_argument("--pooling", choices=("mean", "cls", "last"), help="default: what the checkpoint says")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of a text (default: the checkpoint's)")
    parser.add_argument(
        "--truncate-dim",
        type=int,
        action="append",
        default=[],
        metavar="D",
        help="allow cutting vectors to D dimensions; may be repeated (default: what the model was trained for)",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help='JSON lines with a "text" (default: texts of many kinds, shipped)',
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing pack")


def run(options: argparse.Namespace) -> int:
    """Export."""
    try:
        from embedpack_export.pipeline import export
        from embedpack_export.settings import DEFAULT_WEIGHTS, ExportSettings
    except ModuleNotFoundError as missing:
        raise MissingExtraError("export", str(missing.name)) from missing
    export(
        ExportSettings(
            checkpoint=options.checkpoint,
            output=options.output,
            adapters=_adapters(options.adapter),
            weights=tuple(dict.fromkeys(options.weights or DEFAULT_WEIGHTS)),
            pooling=options.pooling,
            max_tokens=options.max_length,
            truncate_dims=tuple(options.truncate_dim),
            calibrate=options.calibrate,
            overwrite=options.overwrite,
        )
    )
    return 0


def _adapters(pairs: list[str]) -> dict[str, Path]:
    adapters: dict[str, Path] = {}
    for pair in pairs:
        task, separator, folder = pair.partition("=")
        if not separator or not task or not folder:
            raise InputError(f"--adapter {pair}: expected TASK=DIR, e.g. retrieval=adapters")
        if task in adapters:
            raise InputError(f"--adapter names the task {task!r} twice")
        adapters[task] = Path(folder)
    return adapters
