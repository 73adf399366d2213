"""Families: real weights of several architectures, exported in fp32 and int8 and compared with torch."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.errors import OptionError, unknown
from embedpack.pack.folder import Pack, read_pack
from embedpack.pack.manifest import Pooling
from embedpack.pack.strict import WeightsFormat
from embedpack_export.evaluation.accuracy import measure_accuracy
from embedpack_export.evaluation.options import EvaluationOptions
from embedpack_export.evaluation.results import SetDescription, SettingResult
from embedpack_export.evaluation.text_table import text_table
from embedpack_export.metrics.non_inferiority import MARGIN
from embedpack_export.pipeline import export
from embedpack_export.planning.prompt_options import GivenPrompt, PromptOptions
from embedpack_export.planning.settings import LARGEST_LOSS, ExportSettings
from embedpack_export.reference.opening import ReferenceSource

SUMMARY = "Real weights of several families in fp32 and int8, compared with the full-precision torch model."
EXAMPLES = """\
  python -m benchmarks families all-MiniLM-L6-v2=models/minilm SmolLM2-135M=models/smollm2 --data data/eval
  python -m benchmarks families SmolLM2-135M=models/smollm2 --data data/eval --limit 20 --name quick"""

WEIGHTS: tuple[WeightsFormat, ...] = ("fp32", "int8")
ENGLISH = ("retrieval/xquad-en", "retrieval/debian-desc-en", "code/nl2bash")

# Goals of int8, set before measuring: figure of a variant, and the lowest value. The loss is in points of nDCG@10.
GOALS: Mapping[str, float] = {
    "cosine_mean": 0.9995,
    "cosine_p1": 0.999,
    "top_10_overlap": 0.97,
    "difference": -0.1,
}
GOAL_NAMES: Mapping[str, str] = {
    "cosine_mean": "mean cosine",
    "cosine_p1": "1st percentile of cosines",
    "top_10_overlap": "top-10 overlap",
    "difference": "nDCG@10",
}

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class RealModel:
    """Settings of an export that the files do not have, and the evaluation sets."""

    pooling: Pooling = "mean"
    prompts: Mapping[str, str] = field(default_factory=dict)
    sets: Sequence[str] = ENGLISH
    limit: int = 300  # queries of each set: a large model takes long


MODELS: Mapping[str, RealModel] = {
    "all-MiniLM-L6-v2": RealModel(),
    "multilingual-e5-small": RealModel(
        prompts={"query": "query: ", "passage": "passage: "},
        sets=("retrieval/xquad-en", "retrieval/xquad-zh", "retrieval/debian-desc-de"),
    ),
    "SmolLM2-135M": RealModel(limit=100),
    "Qwen2.5-Coder-0.5B": RealModel(sets=("code/nl2bash", "code/cosqa-dev", "code/java-cs-test"), limit=100),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("models", nargs="+", metavar="NAME=DIR", help=f"checkpoints of {', '.join(MODELS)}")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the evaluation sets")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="only N queries of each set and few documents (default: 300 for small models, fewer for large ones)",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Export and measure each model.

    Raises:
        OptionError: a model is unknown.
        InputError, CheckpointError: a set or a checkpoint cannot be used.
    """
    models = [_parsed(value) for value in options.models]
    return {
        "models": [_measured(name, checkpoint, options) for name, checkpoint in models],
    }


def _parsed(value: str) -> tuple[str, Path]:
    name, separator, folder = value.partition("=")
    if name not in MODELS:
        raise OptionError(unknown("model", name, MODELS))
    if not separator:
        raise OptionError(f"{value}: expected NAME=DIR, the folder of the checkpoint")
    return name, Path(folder)


def _measured(name: str, checkpoint: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of a model."""
    logger.info("%s", name)
    model = MODELS[name]
    with tempfile.TemporaryDirectory() as scratch:
        pack = _exported(name, checkpoint, Path(scratch) / "pack")
        report = measure_accuracy(
            EvaluationOptions(
                pack=pack.folder,
                data=options.data,
                reference=ReferenceSource(checkpoint, {}, cache=None),
                sets=model.sets,
                tasks=tuple(pack.manifest.tasks),
                multi=False,
                margin=MARGIN,
                limit=options.limit or model.limit,
                seed=options.seed,
                threads=options.threads,
            ),
            precisions=("float32",),
        )
        (task,) = report.tasks
        return {
            "model": name,
            "family": pack.manifest.family,
            "pooling": model.pooling,
            "prompts": dict(model.prompts),
            "exported_with": pack.manifest.export.tools,
            "sets": [_described(found) for found in task.sets],
            "variants": [_variant(pack, result) for result in task.settings],
        }


def _exported(name: str, checkpoint: Path, folder: Path) -> Pack:
    model = MODELS[name]
    export(
        ExportSettings(
            checkpoint=checkpoint,
            output=folder,
            name=name,
            weights=WEIGHTS,
            pooling=model.pooling,
            prompts=PromptOptions(tuple(GivenPrompt(None, *each) for each in model.prompts.items())),
            # This benchmark measures the loss, on other texts.
            max_loss=LARGEST_LOSS,
            reference="fp32 graph",
        )
    )
    return read_pack(folder)


def _described(found: SetDescription) -> dict[str, Any]:
    return {
        "set": found.name,
        "queries": found.queries,
        "documents": found.documents,
        "reference_ndcg_at_10": found.reference,
    }


def _variant(pack: Pack, result: SettingResult) -> dict[str, Any]:
    """Figures of a variant over all sets, and set by set; cosines are of queries and documents."""
    sets = [
        {
            "set": found.set,
            "difference": round(found.difference, 4),
            "top_10_overlap": None if found.top_10_overlap is None else round(found.top_10_overlap, 4),
            "cosine": None if found.cosine is None else asdict(found.cosine),
        }
        for found in result.sets
    ]
    cosines = [found.cosine for found in result.sets if found.cosine is not None]
    overlaps = [found.top_10_overlap for found in result.sets if found.top_10_overlap is not None]
    name = result.setting.variant
    return {
        "weights": pack.manifest.variants[name].weights,
        "bytes": pack.manifest.variant_bytes(name),
        "difference": round(result.test.difference, 4),
        "interval_95": [round(result.test.low, 4), round(result.test.high, 4)],
        "top_10_overlap": round(float(np.mean(overlaps)), 4),
        "cosine_mean": round(float(np.average([each.mean for each in cosines], weights=[e.count for e in cosines])), 7),
        "cosine_p1": round(min(each.p1 for each in cosines), 7),
        "cosine_min": round(min(each.min for each in cosines), 7),
        "sets": sets,
    }


def table(results: Mapping[str, Any]) -> str:
    """Format the figures of each variant, then set by set."""
    header = ("model", "weights", "MB", "cosine mean", "p1", "min", "top 10", "nDCG@10", "95 % interval")
    rows = list(_rows(results))
    sets = [
        (
            model["model"],
            described["set"],
            variant["weights"],
            str(described["queries"]),
            str(described["documents"]),
            f"{described['reference_ndcg_at_10']:.2f}",
            f"{found['difference']:+.3f}",
            f"{found['top_10_overlap']:.1%}",
            f"{found['cosine']['p1']:.5f}",
        )
        for model in results["models"]
        for variant in model["variants"]
        for described, found in zip(model["sets"], variant["sets"], strict=True)
    ]
    by_set = ("model", "set", "weights", "queries", "documents", "reference", "nDCG@10", "top 10", "cosine p1")
    return "\n\n".join([text_table(header, rows), text_table(by_set, sets)])


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for model in results["models"]:
        for row in model["variants"]:
            low, high = row["interval_95"]
            yield (
                model["model"],
                row["weights"],
                f"{row['bytes'] / 1e6:.0f}",
                *(f"{row[f'cosine_{key}']:.5f}" for key in ("mean", "p1", "min")),
                f"{row['top_10_overlap']:.1%}",
                f"{row['difference']:+.3f}",
                f"[{low:+.3f}, {high:+.3f}]",
            )


def document_rows(reports: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of the table in docs/accuracy.md, the header first: the variants of each model with the goals they miss."""
    header = ["model", "weights", "MB", "nDCG@10", "minus torch", "mean cosine", "1st percentile", "top 10", "missed"]
    rows = [header]
    for model in (model for report in reports for model in report["results"]["models"]):
        reference = np.mean([each["reference_ndcg_at_10"] for each in model["sets"]])
        for row in model["variants"]:
            low, high = row["interval_95"]
            rows.append(
                [
                    f"{model['model']} ({model['family']})",
                    row["weights"],
                    f"{row['bytes'] / 1e6:.0f}",
                    f"{reference + row['difference']:.2f}",
                    f"{row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]",
                    f"{row['cosine_mean']:.5f}",
                    f"{row['cosine_p1']:.5f}",
                    f"{row['top_10_overlap']:.1%}",
                    ", ".join(missed_goals(row)) or "none",
                ]
            )
    return rows


def missed_goals(row: Mapping[str, Any]) -> list[str]:
    """Goals that a variant does not reach, each with its distance."""
    return [f"{GOAL_NAMES[key]} by {goal - row[key]:.2g}" for key, goal in GOALS.items() if row[key] < goal]


def document_note(reports: Sequence[Mapping[str, Any]]) -> str:
    """Sentences below the table: goals, pooling, sets and their sizes."""
    models = [model for report in reports for model in report["results"]["models"]]
    sets = "; ".join(
        f"{model['model']}: {model['sets'][0]['queries']} queries each of "
        f"{', '.join(each['set'].rsplit('/', 1)[-1] for each in model['sets'])}"
        for model in models
    )
    goals = (
        f"mean cosine {GOALS['cosine_mean']}, 1st percentile {GOALS['cosine_p1']} on the worst set, top-10 overlap "
        f"{GOALS['top_10_overlap']:.0%}, at most {-GOALS['difference']} points of nDCG@10 lost"
    )
    return (
        f"Real weights compared with torch in float32, mean pooling, shipped calibration texts; means over the sets. "
        f"Goals: {goals}. {sets}. Weights that were published in 4 bits only count with their dequantized values. A "
        "decoder that was not trained for embedding ranks poorly: there the cosines count. Files: "
        "`benchmarks/results/`."
    )
