"""embedpack export: writes a pack from a checkpoint and its adapters."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from embedpack.cli.options import ADAPTERS, WEIGHTS, add_overwrite
from embedpack.cli.parser import whole_number
from embedpack.errors import OptionError
from embedpack.extras import check_extras
from embedpack.pack.manifest import Pooling
from embedpack.pack.variants import Device
from embedpack_export.commands.adapter_option import parse_adapters
from embedpack_export.commands.prompt_option import parse_prompts

if TYPE_CHECKING:
    from embedpack_export.planning.settings import ReferenceKind
    from embedpack_export.sources.hub import Downloaded

SUMMARY = "Merge adapters into a checkpoint, write a pack, and compare it with the model: a pack over its budget fails."
EXAMPLES = """\
  embedpack export models/all-MiniLM-L6-v2 -o packs/minilm
  embedpack export models/all-MiniLM-L6-v2 -o packs/minilm --adapter retrieval=adapters --weights int8
  embedpack export models/all-MiniLM-L6-v2 -o packs/two --adapter retrieval=adapters --base-task general
  embedpack export models/multilingual-e5-small -o packs/e5 --pooling mean --prompt query="query: " \\
    --prompt passage="passage: " --default-prompt passage
  embedpack export models/multilingual-e5-small -o packs/e5 --pooling mean --weights int8 --weights int4
  embedpack export models/multilingual-e5-small -o packs/e5 --weights int4 --allow-loss 2
  embedpack export models/multilingual-e5-small -o packs/e5 --pooling mean --weights int4 --device cuda
  embedpack export jinaai/jina-embeddings-v4 -o packs/v4 --adapters switchable --task retrieval --task code
  embedpack export jinaai/jina-embeddings-v4 --revision main -o packs/v4-text --task retrieval --modality text"""

REFERENCES: dict[str, ReferenceKind] = {"torch": "torch", "graph": "fp32 graph"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="folder with config.json and safetensors, or owner/name of a repository on the Hugging Face hub",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the repository (default: its main branch)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PACK", help="folder to write")
    _add_model(parser)
    _add_inputs(parser)
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help='calibration texts, JSON lines with a "text" each (default: texts of the exporter)',
    )
    parser.add_argument(
        "--code-center",
        choices=("calibrated", "none"),
        default="calibrated",
        help="center and rotation of low-bit codes: those that raise recall, or none, so that bits are the signs of "
        "the vector as other programs compute them (default: calibrated)",
    )
    _add_check(parser)
    add_overwrite(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Declare --adapter, --task, --base-task, --adapters, --modality, --weights, --device."""
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="TASK=DIR",
        help="folder with the PEFT adapter of a task; may be repeated (--adapters sets the mode)",
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="TASK",
        help="task to export; may be repeated (default: all tasks of the checkpoint)",
    )
    parser.add_argument(
        "--base-task",
        metavar="NAME",
        help="also export the model without an adapter, as a task of this name beside those with one",
    )
    parser.add_argument(
        "--adapters",
        action="append",
        choices=ADAPTERS,
        help="adapter mode: a graph for each task, or one with switchable adapters; may be repeated (default: merged; "
        "switchable for several tasks of jina-embeddings-v3)",
    )
    parser.add_argument(
        "--modality",
        choices=("text", "text+image"),
        help="inputs of the pack (default: all that the checkpoint supports)",
    )
    parser.add_argument(
        "--weights",
        action="append",
        choices=WEIGHTS,
        help="weights format; may be repeated (default: fp32 and int8)",
    )
    parser.add_argument(
        "--device",
        choices=get_args(Device),
        help="device that int4 weights are for (default: cpu); fp32 and int8 are for CPUs, fp16 is for GPUs",
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    """Declare --pooling, --max-length, --prompt, --default-prompt, --text-token, --truncate-dim."""
    parser.add_argument(
        "--pooling", choices=get_args(Pooling), help="pooling of single vectors (default: the checkpoint's)"
    )
    parser.add_argument(
        "--max-length",
        type=whole_number(1),
        metavar="N",
        help="maximum length of an input in tokens (default: the checkpoint's)",
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="[TASK:]NAME=TEXT",
        help='prompt of a task, e.g. query="query: "; replaces one of the same name in the files; may be repeated '
        "(default: those of the files of the adapter or the checkpoint)",
    )
    parser.add_argument(
        "--default-prompt",
        action="append",
        default=[],
        metavar="[TASK:]NAME",
        help="prompt of inputs without a prompt name, an empty name for none; once a task (default: that of the files)",
    )
    parser.add_argument(
        "--text-token",
        action="append",
        default=[],
        metavar="TOKEN",
        help="special token that is parsed in texts too, e.g. [ENT]; may be repeated (default: special tokens in texts "
        "are plain characters, so that no text can end the input or stand for a prompt)",
    )
    parser.add_argument(
        "--truncate-dim",
        type=whole_number(1),
        action="append",
        default=[],
        metavar="D",
        help="allow truncation to D dimensions; may be repeated (default: those that the model was trained for)",
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    """Declare --max-loss, --allow-loss, --reference."""
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--max-loss",
        type=float,
        metavar="POINTS",
        help="budget: points of nDCG@10 that a variant may lose against the reference, on the calibration texts; a "
        "larger loss fails the export (default: 0.05 for fp32 and fp16, 0.3 for int8, 1 for int4)",
    )
    budget.add_argument(
        "--allow-loss",
        type=float,
        metavar="POINTS",
        help="accept variants that lose more than the default budget, up to this; the pack and its report record it",
    )
    parser.add_argument(
        "--reference",
        choices=("torch", "graph"),
        help="full-precision model that the pack is compared with: torch with unmerged adapters, or the fp32 graph "
        "(default: torch where the extra 'reference' is installed and the model fits into memory)",
    )
    # Name of --reference in the first version; scripts have it.
    parser.add_argument("--judge", dest="reference", choices=("torch", "graph"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Run the export."""
    # Before any work, with everything that is missing.
    check_extras("export", *(["reference"] if options.reference == "torch" else []), *_hub(options.checkpoint))
    from embedpack_export.assembly.new_folder import check_output
    from embedpack_export.pipeline import export
    from embedpack_export.planning.settings import DEFAULT_WEIGHTS, ExportSettings

    adapters, prompts = parse_adapters(options.adapter), parse_prompts(options.prompt, options.default_prompt)
    # Fail before a download of gigabytes.
    check_output(options.output, overwrite=options.overwrite)
    downloaded = _downloaded(options.checkpoint, options.revision)
    export(
        ExportSettings(
            checkpoint=Path(options.checkpoint) if downloaded is None else downloaded.folder,
            output=options.output,
            name=None if downloaded is None else downloaded.name,
            revision=None if downloaded is None else downloaded.revision,
            adapters=adapters,
            tasks=tuple(dict.fromkeys(options.task)),
            base_task=options.base_task,
            adapter_modes=tuple(dict.fromkeys(options.adapters or ())),
            modality=options.modality,
            weights=tuple(dict.fromkeys(options.weights or DEFAULT_WEIGHTS)),
            device=options.device,
            pooling=options.pooling,
            max_tokens=options.max_length,
            text_tokens=tuple(dict.fromkeys(options.text_token)),
            prompts=prompts,
            truncate_dims=tuple(options.truncate_dim),
            calibrate=options.calibrate,
            code_center=options.code_center,
            max_loss=options.max_loss,
            allow_loss=options.allow_loss,
            reference=None if options.reference is None else REFERENCES[options.reference],
            overwrite=options.overwrite,
        )
    )
    return 0


def _hub(checkpoint: str) -> list[str]:
    """Name of the extra for checkpoints of the hub, if this is one."""
    from embedpack_export.sources.hub import is_repository

    return ["hub"] if is_repository(checkpoint) else []


def _downloaded(checkpoint: str, revision: str | None) -> Downloaded | None:
    """Download a repository of the hub; None: the checkpoint is a folder."""
    from embedpack_export.sources.hub import download, is_repository

    if is_repository(checkpoint):
        return download(checkpoint, revision)
    if revision is not None:
        raise OptionError(f"--revision goes with the owner/name of a repository; {checkpoint} is a path")
    return None
