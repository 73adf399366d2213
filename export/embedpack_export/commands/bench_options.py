"""Options of `embedpack bench`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedpack.cli.options import PRECISIONS, add_log, add_pack, add_threads, add_variants, chosen_variants
from embedpack.cli.output import add_json
from embedpack.cli.parser import whole_number
from embedpack.errors import OptionError

if TYPE_CHECKING:
    from embedpack_export.evaluation.options import EvaluationOptions
    from embedpack_export.reference.opening import ReferenceSource

ACCURACY = "Accuracy of every variant, truncation and precision, compared with the full-precision reference."
ACCURACY_DETAILS = """\
The reference is the torch model in float32 with unmerged adapters (--reference), else the pack's own fp32 variant; the
output names it. Each difference has the 95 % interval of a paired bootstrap, 10,000 resamples of the queries of each
set, and the outcome of a non-inferiority test with the margin of --max-loss: non-inferior (the interval lies above
-margin), inferior (below), or not resolvable (the sample is too small; the output estimates how many queries would be
needed).

--data holds folders in BEIR's layout (corpus.jsonl, queries.jsonl, qrels.tsv or qrels/test.tsv; corpus entries may name
an image) or with pairs.tsv (score, a, b); files may end in .gz. Sets below code/ belong to the task code, pairs to
text-matching, all others to retrieval, if the pack has that task.

A pack that gives scores reranks the documents that the pack of --first-stage finds; the outcome is that of the mean
difference over all sets.

Exit status: 0 if every outcome that decides it is non-inferior; 1 if one is inferior or not resolvable, or on an error.
Without --precision and --truncate-dim everything is measured, and full float32 vectors of each variant decide; with one
of them, all named settings decide. Scores of --mteb are informational.

examples:
  embedpack bench accuracy packs/minilm --data data/eval
  embedpack bench accuracy packs/minilm --data eval --reference models/all-MiniLM-L6-v2 --adapter retrieval=adapters
  embedpack bench accuracy packs/minilm --data data/eval --variant retrieval-int8 --precision 4bit --truncate-dim 256
  embedpack bench accuracy packs/minilm --data data/eval --set code/nl2bash --limit 50
  embedpack bench accuracy packs/reranker --first-stage packs/minilm --depth 50 --data data/eval"""
SWEEP = "Cost and loss of all weights, precisions, truncations and pool factors, and the cheapest within the margin."
SWEEP_DETAILS = """\
Losses are in points of nDCG@10, compared with full float32 vectors of the reference (see: embedpack bench accuracy -h).
Each variant encodes once; codes of all precisions are computed from its float32 vectors. Time and memory are measured
in separate processes. The recommended setting has the fewest bytes, then the most tokens per second, of those whose
loss is within the margin of --max-loss.

Exit status: 0 if there is such a setting for each task, else 1.

examples:
  embedpack bench sweep packs/minilm --data data/eval --set retrieval/debian-desc-en
  embedpack bench sweep packs/minilm --data data/eval --max-loss 0.5 --html sweep.html --json sweep.json"""


def add_accuracy(commands: Any) -> argparse.ArgumentParser:
    """Declare the command `accuracy`."""
    accuracy = _add(commands, "accuracy", ACCURACY, ACCURACY_DETAILS)
    accuracy.add_argument(
        "--precision",
        action="append",
        default=[],
        choices=PRECISIONS,
        help="precision of the document vectors; may be repeated (default: all)",
    )
    accuracy.add_argument(
        "--truncate-dim",
        action="append",
        type=whole_number(1),
        default=[],
        metavar="D",
        help="truncation to D dimensions; may be repeated (default: all)",
    )
    accuracy.add_argument(
        "--max-loss",
        type=float,
        default=0.3,
        metavar="POINTS",
        help="margin of the non-inferiority test: the loss that is allowed (default: %(default)s)",
    )
    accuracy.add_argument(
        "--mteb", action="append", default=[], metavar="NAME", help="score a task of mteb, too; may be repeated"
    )
    accuracy.add_argument(
        "--first-stage", type=Path, metavar="PACK", help="embedder that finds the documents for a reranker"
    )
    accuracy.add_argument(
        "--depth", type=whole_number(2), metavar="K", help="documents that a reranker scores (default: 100)"
    )
    return accuracy


def check_first_stage(options: argparse.Namespace, *, is_reranker: bool) -> None:
    """Refuse options that are of no use for the pack.

    Raises:
        OptionError: a reranker has no first stage, or has options of vectors; or the other way round.
    """
    first = {"--first-stage": options.first_stage, "--depth": options.depth}
    vectors = {
        "--precision": options.precision,
        "--truncate-dim": options.truncate_dim,
        "--mteb": options.mteb,
        "--no-multi": options.no_multi,
    }
    kind = "scores" if is_reranker else "vectors"
    for name, value in (vectors if is_reranker else first).items():
        if value:
            raise OptionError(f"{name} is of no use, since {options.pack} gives {kind}; leave it out")
    if is_reranker and options.first_stage is None:
        raise OptionError(f"{options.pack} gives scores; pass --first-stage, the embedder that finds the documents")


def add_sweep(commands: Any) -> argparse.ArgumentParser:
    """Declare the command `sweep`."""
    sweep = _add(commands, "sweep", SWEEP, SWEEP_DETAILS)
    sweep.add_argument(
        "--max-loss",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="margin of the recommendation: the loss that is allowed (default: %(default)s)",
    )
    sweep.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    return sweep


def _add(commands: Any, name: str, summary: str, details: str) -> argparse.ArgumentParser:
    """Add a subcommand of bench with the options common to `accuracy` and `sweep`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary}\n\n{details}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_pack(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the evaluation sets")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="sets",
        metavar="NAME",
        help="set to measure; may be repeated (default: all)",
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        help="measure every set with this task; may be repeated (default: each set with the task of its kind)",
    )
    add_variants(parser)
    parser.add_argument("--no-multi", action="store_true", help="skip multi-vectors, which take most of the time")
    _add_reference(parser)
    _add_run(parser)
    add_threads(parser)
    add_json(parser, Path)
    add_log(parser)
    parser.set_defaults(parser=parser)
    return parser


def _add_reference(parser: argparse.ArgumentParser) -> None:
    """Declare --reference, --adapter, --cache, --no-cache."""
    parser.add_argument(
        "--reference", type=Path, metavar="CHECKPOINT", help="checkpoint that the pack was exported from"
    )
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="TASK=DIR", help="PEFT adapter of a task; may be repeated"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder for cached reference vectors (default: below ~/.cache)"
    )
    parser.add_argument("--no-cache", action="store_true", help="compute the reference's vectors without a cache")


def _add_run(parser: argparse.ArgumentParser) -> None:
    """Declare --limit, --on-empty, --seed."""
    parser.add_argument(
        "--limit", type=whole_number(2), metavar="N", help="only N queries or pairs of each set, for a quick run"
    )
    parser.add_argument(
        "--on-empty",
        choices=("skip", "error"),
        default="skip",
        help="empty texts of the sets: leave them out, or stop (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="seed of the bootstrap (default: %(default)s)"
    )


def evaluation_options(options: argparse.Namespace) -> EvaluationOptions:
    """Options of an evaluation from those of the command line; OptionError if they exclude each other."""
    from embedpack_export.evaluation.options import EvaluationOptions

    return EvaluationOptions(
        pack=options.pack,
        data=options.data,
        reference=_reference(options),
        sets=options.sets,
        tasks=tuple(dict.fromkeys(options.task)),
        variants=_variants(options),
        multi=not options.no_multi,
        margin=options.max_loss,
        on_empty=options.on_empty,
        limit=options.limit,
        seed=options.seed,
        threads=options.threads,
    )


def _variants(options: argparse.Namespace) -> Sequence[str]:
    """Names of the variants to measure; empty: all."""
    from embedpack.pack.folder import read_pack

    if not options.variant and not options.weights:
        return ()
    return chosen_variants(read_pack(options.pack).manifest, options)


def _reference(options: argparse.Namespace) -> ReferenceSource:
    from embedpack_export.commands.adapter_option import parse_adapters
    from embedpack_export.reference.cache import default_cache
    from embedpack_export.reference.opening import ReferenceSource

    if options.no_cache and options.cache is not None:
        raise OptionError("--cache and --no-cache exclude each other; pass one of them")
    cache = None if options.no_cache else options.cache or default_cache()
    return ReferenceSource(options.reference, parse_adapters(options.adapter), cache)
