"""Soak benchmark: memory while thousands of texts of mixed lengths are embedded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.arguments import add_number, add_pack, add_variant, variant_of
from benchmarks.fresh_process import in_fresh_process
from benchmarks.host.worker import SoakJob, measure_soak
from embedpack.errors import InputError
from embedpack.host.cores import available_cores
from embedpack.pack.folder import read_pack
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Growth of memory over thousands of texts of mixed lengths."
EXAMPLES = """\
  python -m benchmarks soak packs/minilm
  python -m benchmarks soak packs/minilm --texts 2000 --every 100"""

# Share of the texts that fill the allocators' caches; the slope is fitted to the rest.
WARM_UP_SHARE = 0.3
# Growth in PER_TEXTS texts that is within the noise, and would take years to matter.
MAX_FLAT_BYTES = 5_000_000
PER_TEXTS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    add_pack(parser)
    add_variant(parser)
    add_number(parser, "--texts", 10_000, "number of texts")
    add_number(parser, "--every", 500, "texts of a call")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Embed texts in a fresh process, and fit a line to its memory.

    Raises:
        EmbedpackError: the pack is broken, or the worker failed.
    """
    if options.texts < 10 * options.every:
        raise InputError(f"--texts is {options.texts}; a slope needs at least 10 steps of --every {options.every}")
    pack = read_pack(options.pack)
    variant = variant_of(pack, options.variant)
    job = SoakJob(
        pack=str(pack.folder.resolve()),
        variant=variant,
        threads=options.threads or available_cores(),
        texts=options.texts,
        every=options.every,
        seed=options.seed,
    )
    measured = in_fresh_process(measure_soak, job)
    return {
        "model": pack.manifest.name,
        "fingerprint": pack.manifest.source.fingerprint,
        "variant": variant,
        "texts": options.texts,
        **measured,
        "growth": {kind: growth(measured["steps"], kind) for kind in ("anonymous", "rss")},
        "flat_bytes": MAX_FLAT_BYTES,
    }


def growth(steps: Sequence[Mapping[str, int]], kind: str) -> float:
    """Growth of memory in bytes per PER_TEXTS texts: slope of the least-squares line after the warm-up."""
    rest = steps[int(WARM_UP_SHARE * len(steps)) :]
    slope, _ = np.polyfit([step["texts"] for step in rest], [step[kind] for step in rest], 1)
    return float(slope) * PER_TEXTS


def table(results: Mapping[str, Any]) -> str:
    """Table of the memory after each call, and the slopes."""
    rows = [
        (str(step["texts"]), *(f"{step[kind] / 1e6:.1f}" for kind in ("anonymous", "rss"))) for step in results["steps"]
    ]
    slopes = results["growth"]
    outcome = "flat" if max(slopes.values()) < results["flat_bytes"] else "GROWING"
    growths = ", ".join(f"{kind} {value / 1e6:+.2f} MB" for kind, value in slopes.items())
    return "\n\n".join(
        [
            text_table(("texts", "anonymous MB", "resident MB"), rows),
            f"{results['variant']}, {results['texts']} texts in {results['seconds']:.0f} s; growth in {PER_TEXTS} "
            f"texts, after the first {WARM_UP_SHARE:.0%}: {growths}: {outcome} "
            f"(flat: below {results['flat_bytes'] / 1e6:.0f} MB)",
        ]
    )
