"""Footprint benchmark: bytes of a pack and of the installation, time to import and to load, memory."""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import embedpack
from benchmarks.arguments import add_number
from benchmarks.fresh_process import in_fresh_process
from benchmarks.host import real_size
from benchmarks.host.embedder_worker import measure_open
from benchmarks.jobs import VariantJob
from embedpack.errors import InputError
from embedpack.host.cores import available_cores
from embedpack.pack.folder import Pack, read_pack
from embedpack.pack.manifest import MANIFEST_NAME
from embedpack_export.evaluation.text_table import text_table

SUMMARY = "Bytes on disk, time to import and to load, memory."
EXAMPLES = """\
  python -m benchmarks footprint packs/minilm
  python -m benchmarks footprint packs/minilm --threads 1
  python -m benchmarks footprint --real-size jina-embeddings-v3 --make real-v3 --name real-size-v3"""

# Program that prints the seconds of the import.
TIME_IMPORT = "import time; start = time.perf_counter(); import embedpack; print(time.perf_counter() - start)"
STEPS = ("after_import", "after_load", "after_texts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's arguments."""
    parser.add_argument("pack", nargs="?", type=Path, metavar="PACK", help="folder of the pack")
    parser.add_argument(
        "--real-size",
        choices=real_size.MODELS,
        help="in place of a pack: export and open a checkpoint of the size of this model, with random weights",
    )
    parser.add_argument(
        "--make",
        type=Path,
        metavar="DIR",
        help="with --real-size: folder for the checkpoint, 1 or 8 GB, and the pack; a checkpoint that is there is used",
    )
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE", help="with --real-size: calibration texts of the export"
    )
    add_number(parser, "--repetitions", 5, "repetitions of every time")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a pack and the installation, or the export of a checkpoint of real size.

    Raises:
        InputError: neither or both of a pack and --real-size are given, or one of --real-size and --make.
        EmbedpackError: the pack is broken, or a worker failed.
    """
    if (options.pack is None) == (options.real_size is None) or (options.make is None) != (options.real_size is None):
        raise InputError("pass either a pack, or --real-size with a model and --make with a folder")
    if options.real_size is not None:
        return {"real_size": real_size.measure(options.real_size, options)}
    pack = read_pack(options.pack)
    packages = {name: _installed_bytes(name) for name in sorted(_required("embedpack"))}
    manifest_bytes = (pack.folder / MANIFEST_NAME).stat().st_size
    return {
        "model": pack.manifest.name,
        "fingerprint": pack.manifest.source.fingerprint,
        "exported_with": pack.manifest.export.tools,
        "repetitions": options.repetitions,
        "install_bytes": {"embedpack": _own_bytes(), **packages},
        "import_s": _median_import(options.repetitions),
        "pack_bytes": manifest_bytes + sum(entry.bytes for entry in pack.manifest.files.values()),
        "variants": [_variant(pack, name, options) for name in pack.manifest.variants],
    }


def _variant(pack: Pack, name: str, options: argparse.Namespace) -> dict[str, Any]:
    job = VariantJob(pack=str(pack.folder.resolve()), variant=name, threads=options.threads or available_cores())
    measured = [in_fresh_process(measure_open, job) for _ in range(options.repetitions)]
    files, variant = pack.manifest.files, pack.manifest.variants[name]
    return {
        "variant": name,
        # Variants may share weights.
        "weights_bytes": sum(files[file].bytes for file in variant.external_data),
        "graphs_bytes": files[variant.graph].bytes,
        "load_s": round(statistics.median(each["load_s"] for each in measured), 4),
        "memory": {
            step: {kind: int(statistics.median(each[step][kind] for each in measured)) for kind in measured[0][step]}
            for step in STEPS
        },
    }


def _median_import(repetitions: int) -> float:
    """Median seconds of `import embedpack` in a fresh process; a first run fills the system's file cache."""
    command = [sys.executable, "-c", TIME_IMPORT]
    times = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(repetitions + 1)]
    return round(statistics.median(times[1:]), 4)


def _required(package: str) -> set[str]:
    """Packages that a package requires on this platform, directly or not, without extras."""
    required: set[str] = set()
    waiting = [package]
    while waiting:
        for line in importlib.metadata.requires(waiting.pop()) or []:
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and name not in required:
                required.add(name)
                waiting.append(name)
    return required


def _installed_bytes(package: str) -> int:
    """Bytes on disk of the files that pip recorded for a package."""
    files = importlib.metadata.files(package) or []
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _own_bytes() -> int:
    """Bytes of embedpack's runtime, whose files pip does not record for an editable installation."""
    folder = Path(embedpack.__file__).parent
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")


def table(results: Mapping[str, Any]) -> str:
    """Tables of the variants and of the installation, or of the real size."""
    if "real_size" in results:
        return real_size.table(results["real_size"])
    variants = [
        (
            row["variant"],
            _megabytes(row["weights_bytes"]),
            f"{row['graphs_bytes'] / 1e3:.0f}",
            f"{row['load_s']:.2f}",
            *(
                f"{_megabytes(row['memory'][step]['rss'])} / {_megabytes(row['memory'][step]['anonymous'])}"
                for step in STEPS
            ),
        )
        for row in results["variants"]
    ]
    installed = sorted(results["install_bytes"].items(), key=lambda pair: -pair[1])
    packages = [(name, _megabytes(size)) for name, size in installed]
    packages.append(("all", _megabytes(sum(results["install_bytes"].values()))))
    memory = ("imported, MB resident / anonymous", "loaded", "after texts")
    header = ("variant", "weights MB", "graphs kB", "load s", *memory)
    summary = f"pack {_megabytes(results['pack_bytes'])} MB, import {results['import_s']:.2f} s"
    return "\n\n".join([text_table(header, variants), summary, text_table(("installed", "MB"), packages)])


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}"
