"""Accuracy: every variant against the full-precision torch model with its adapter unmerged, on retrieval sets."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics import Float64, best, cosines, interval_95, ndcg_at_10, overlap
from benchmarks.retrieval_set import RetrievalSet, read_set
from benchmarks.tables import table as text_table
from embedpack import Embedder, Embeddings, InputError, similarity
from embedpack.codes import Precision
from embedpack.pack import Manifest, WeightsFormat, read_pack
from embedpack_export.pipeline import export
from embedpack_export.plan import ExportPlan, make_plan
from embedpack_export.settings import ExportSettings

SUMMARY = "Vectors and rankings of every variant against the full-precision torch model."
EXAMPLES = """\
  python -m benchmarks accuracy models/all-MiniLM-L6-v2 --adapter retrieval=adapters --data data/eval
  python -m benchmarks accuracy models/all-MiniLM-L6-v2 --pack packs/minilm --data data/eval --set code/nl2bash
  python -m benchmarks accuracy models/all-MiniLM-L6-v2 --data data/eval --limit 50 --name trial"""

SETS = ("retrieval/xquad-en", "retrieval/debian-desc-en", "code/nl2bash")
WEIGHTS: tuple[WeightsFormat, ...] = ("fp32", "int8", "int4")
# The variant whose vectors are also truncated and coded.
CODED: WeightsFormat = "int8"
CODES: tuple[Precision, ...] = ("int8", "binary")

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Vectors:
    """Vectors of a set's texts, in their order."""

    queries: Embeddings
    documents: Embeddings

    def truncated(self, dimensions: int) -> Vectors:
        """The same, cut to fewer dimensions."""
        return Vectors(self.queries.truncate(dimensions), self.documents.truncate(dimensions))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of the full-precision model")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the retrieval sets")
    parser.add_argument("--adapter", action="append", default=[], metavar="TASK=DIR", help="may be repeated")
    parser.add_argument("--pack", type=Path, help="measure this pack of them (default: export one, then drop it)")
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="NAME", help=f"may be repeated (default: {', '.join(SETS)})"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N queries of each set and few documents: a trial")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all tasks of a pack on all sets.

    Raises:
        InputError: an option or a set cannot be used, or the pack is not of this checkpoint and these adapters.
        MissingExtraError: torch, transformers, peft or ir-measures are not installed.
    """
    sets = [read_set(options.data, name) for name in options.sets or SETS]
    sets = [item.limited(options.limit) for item in sets] if options.limit else sets
    with _opened(options) as settings:
        plan, manifest = make_plan(settings), read_pack(settings.output).manifest
        if plan.source.fingerprint != manifest.source.fingerprint:
            raise InputError(
                f"{settings.output}: this pack was made of other files than {options.checkpoint} and --adapter"
            )
        return {
            "model": manifest.name,
            "fingerprint": manifest.source.fingerprint,
            "limit": options.limit,
            "exported_with": manifest.export.tools,
            "tasks": {task: _measure(settings.output, plan, task, sets, options) for task in manifest.tasks},
        }


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[ExportSettings]:
    """The settings that make the pack; `output` is the pack."""
    adapters = dict(_adapter(pair) for pair in options.adapter)
    if options.pack is not None:
        manifest = read_pack(options.pack).manifest
        yield ExportSettings(
            checkpoint=options.checkpoint,
            output=options.pack,
            adapters=adapters,
            pooling=manifest.pooling,
            max_tokens=manifest.text.max_tokens,
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        settings = ExportSettings(
            checkpoint=options.checkpoint, output=Path(folder) / "pack", adapters=adapters, weights=WEIGHTS
        )
        export(settings)
        yield settings


def _adapter(pair: str) -> tuple[str, Path]:
    task, separator, folder = pair.partition("=")
    if not separator or not task or not folder:
        raise InputError(f"--adapter {pair}: expected TASK=DIR, e.g. retrieval=adapters")
    return task, Path(folder)


def _measure(
    pack: Path, plan: ExportPlan, task: str, sets: Sequence[RetrievalSet], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The figures of one task: one entry a set."""
    manifest = read_pack(pack).manifest
    references = _reference_vectors(plan, task, sets, manifest)
    found: list[dict[str, Any]] = [_describe(item, vectors) for item, vectors in zip(sets, references, strict=True)]
    for variant, described in manifest.variants.items():
        if described.task != task:
            continue
        model = Embedder(pack, variant=variant, threads=options.threads)
        for item, reference, entry in zip(sets, references, found, strict=True):
            logger.info("%s: %s", variant, item.name)
            vectors = _encode(model, item, "float32")
            entry["variants"][variant] = _compare(item, vectors, reference, options.seed)
            if described.weights == CODED:
                entry["codes"] = _codes(model, item, vectors, reference)
    return found


def _reference_vectors(plan: ExportPlan, task: str, sets: Sequence[RetrievalSet], manifest: Manifest) -> list[Vectors]:
    # Importing torch takes seconds, which the other benchmarks need not wait for.
    from embedpack_export.reference.model import ReferenceModel

    model = ReferenceModel.from_plan(plan, task)
    prompts, default = plan.tasks[task].prompts, plan.tasks[task].default_prompt_name

    def encode(texts: Mapping[str, str], prompt_name: str) -> Embeddings:
        name = prompt_name if prompt_name in prompts else default
        vectors = model.encode(list(texts.values()), "" if name is None else prompts[name])
        return Embeddings(vectors, "float32", manifest.dimensions, manifest.space(task))

    found = []
    for item in sets:
        logger.info("reference of %s: %s", task, item.name)
        found.append(Vectors(encode(item.queries, "query"), encode(item.documents, "passage")))
    return found


def _encode(model: Embedder, item: RetrievalSet, precision: Precision) -> Vectors:
    """Queries as float32, documents in a precision, both with the prompt of their kind where the task has it."""
    queries, documents = list(item.queries.values()), list(item.documents.values())
    return Vectors(
        model.encode(queries, prompt_name="query" if "query" in model.prompts else None),
        model.encode(documents, prompt_name="passage" if "passage" in model.prompts else None, precision=precision),
    )


def _describe(item: RetrievalSet, reference: Vectors) -> dict[str, Any]:
    return {
        "set": item.name,
        "documents": len(item.documents),
        "queries": len(item.queries),
        "reference_ndcg_at_10": _rounded(_ndcg(item, reference)),
        "variants": {},
        "codes": [],
    }


def _compare(item: RetrievalSet, vectors: Vectors, reference: Vectors, seed: int) -> dict[str, Any]:
    """How far a variant is from the reference."""
    ranks, expected = (best(similarity(side.queries, side.documents)) for side in (vectors, reference))
    values = ndcg_at_10(ranks, item)
    differences = values - ndcg_at_10(expected, item)
    low, high = interval_95(differences, seed)
    found, exact = (np.concatenate([side.queries.decode(), side.documents.decode()]) for side in (vectors, reference))
    return {
        "ndcg_at_10": _rounded(values),
        "difference": _rounded(differences),
        "difference_95": [round(low, 3), round(high, 3)],
        "top_10_overlap": round(overlap(ranks, expected), 4),
        "cosine": asdict(cosines(found, exact)),
    }


def _codes(model: Embedder, item: RetrievalSet, vectors: Vectors, reference: Vectors) -> list[dict[str, Any]]:
    """Every truncation in every precision, float32 queries against coded documents."""
    whole = _ndcg(item, reference).mean()
    coded = [("reference", reference), (model.variant, vectors)]
    coded += [(model.variant, _encode(model, item, precision)) for precision in CODES]
    rows = []
    for dimensions in model.truncate_dims:
        for name, full in coded:
            precision = full.documents.precision
            if precision == "binary" and dimensions % 8:
                continue
            cut = full.truncated(dimensions)
            values = _ndcg(item, cut)
            rows.append(
                {
                    "variant": name,
                    "dimensions": dimensions,
                    "precision": precision,
                    "bytes": cut.documents.nbytes // len(cut.documents),
                    "ndcg_at_10": _rounded(values),
                    "retention": round(float(values.mean() / whole), 4) if whole else None,
                }
            )
    return rows


def _ndcg(item: RetrievalSet, vectors: Vectors) -> Float64:
    return ndcg_at_10(best(similarity(vectors.queries, vectors.documents)), item)


def _rounded(values: Float64) -> float:
    return round(float(values.mean()), 3)


def table(results: Mapping[str, Any]) -> str:
    """Variants, then codes, of all tasks and sets."""
    variants, codes = [], []
    for task, sets in results["tasks"].items():
        for entry in sets:
            name = f"{task} {entry['set']}"
            variants.append((name, "reference", f"{entry['reference_ndcg_at_10']:.3f}", "", "", "", "", "", ""))
            for variant, found in entry["variants"].items():
                low, high = found["difference_95"]
                cosine = [f"{found['cosine'][key]:.6f}" for key in ("mean", "p1", "min")]
                row = (
                    f"{found['ndcg_at_10']:.3f}",
                    f"{found['difference']:+.3f}",
                    f"[{low:+.3f}, {high:+.3f}]",
                    *cosine,
                )
                variants.append((name, variant, *row, f"{found['top_10_overlap']:.1%}"))
            for row in entry["codes"]:
                retention = "" if row["retention"] is None else f"{row['retention']:.2%}"
                kind = (row["variant"], row["dimensions"], row["precision"], row["bytes"])
                codes.append((name, *kind, f"{row['ndcg_at_10']:.3f}", retention))
    header = ("task and set", "variant", "nDCG@10", "difference", "95 % interval", "cosine mean", "p1", "min", "top 10")
    coded = ("task and set", "variant", "dimensions", "documents", "bytes", "nDCG@10", "retention")
    return "\n\n".join([text_table(header, variants), text_table(coded, codes)])
