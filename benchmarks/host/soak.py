"""Soak: does memory stay flat while texts of mixed lengths are embedded?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.host.worker import MODULE, SoakJob
from benchmarks.jobs import in_fresh_process
from embedpack.errors import InputError
from embedpack.host.cores import available_cores
from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Memory over thousands of texts of mixed lengths: flat, or growing?"
EXAMPLES = """\
  python -m benchmarks soak packs/minilm
  python -m benchmarks soak packs/minilm --texts 2000 --every 100"""

# The first part of a run fills caches of memory; the slope is that of the rest.
WARM_PART = 0.3
# A growth below it in 10,000 texts cannot be told from chance, and would take years to matter.
FLAT_BYTES = 5_000_000
PER_TEXTS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of the pack")
    parser.add_argument("--variant", metavar="V", help="default: the first of int8, else the first")
    parser.add_argument("--texts", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--every", type=int, default=500, metavar="N", help="texts of a call; default: %(default)s")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Embed texts in a fresh process, and fit lines to its memory.

    Raises:
        EmbedpackError: the pack is broken, or the worker failed.
    """
    if options.texts < 10 * options.every:
        raise InputError(f"--texts is {options.texts}; a slope needs at least 10 steps of --every {options.every}")
    pack = read_pack(options.pack)
    variants = pack.manifest.variants
    name = options.variant or next((name for name, item in variants.items() if item.weights == "int8"), min(variants))
    job = SoakJob(
        pack=str(pack.folder.resolve()),
        variant=name,
        threads=options.threads or available_cores(),
        texts=options.texts,
        every=options.every,
        seed=options.seed,
    )
    found = in_fresh_process(job, MODULE)
    return {
        "model": pack.manifest.name,
        "fingerprint": pack.manifest.source.fingerprint,
        "variant": name,
        "texts": options.texts,
        **found,
        "growth": {kind: growth(found["steps"], kind) for kind in ("anonymous", "rss")},
        "flat_bytes": FLAT_BYTES,
    }


def growth(steps: Sequence[Mapping[str, int]], kind: str) -> float:
    """Bytes that memory grows by in PER_TEXTS texts: the slope of the least-squares line behind the warm part."""
    rest = steps[int(WARM_PART * len(steps)) :]
    slope, _ = np.polyfit([step["texts"] for step in rest], [step[kind] for step in rest], 1)
    return float(slope) * PER_TEXTS


def table(results: Mapping[str, Any]) -> str:
    """Memory at every step, the slopes, the verdict."""
    rows = [
        (str(step["texts"]), *(f"{step[kind] / 1e6:.1f}" for kind in ("anonymous", "rss"))) for step in results["steps"]
    ]
    found = results["growth"]
    verdict = "flat" if max(found.values()) < results["flat_bytes"] else "GROWING"
    slopes = ", ".join(f"{kind} {value / 1e6:+.2f} MB" for kind, value in found.items())
    return "\n\n".join(
        [
            text_table(("texts", "anonymous MB", "resident MB"), rows),
            f"{results['variant']}, {results['texts']} texts in {results['seconds']:.0f} s; in {PER_TEXTS} more texts: "
            f"{slopes}, behind the first {WARM_PART:.0%}: {verdict} (flat: below {results['flat_bytes'] / 1e6:.0f} MB)",
        ]
    )
