"""Peers made ready: environments, the merged checkpoint, the conversions; and their runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.jobs import in_fresh_process
from benchmarks.peers.catalogue import PEERS, Peer, Step
from benchmarks.peers.environments import ENVIRONMENTS, python_of
from benchmarks.peers.job import PeerJob, PrepareJob, Source
from benchmarks.peers.merged import MergeJob
from benchmarks.speed.runs import Run, reason_of
from benchmarks.speed.workloads import Workload
from embedpack import EmbedpackError
from embedpack.errors import InputError, unknown
from embedpack.pack.folder import Pack
from embedpack.progress import Progress

WORKER = "benchmarks.peers.worker"
OWN_BATCHING = "its own"
# A conversion or a measurement that takes longer hangs.
TIMEOUT = 1800


@dataclass(frozen=True)
class Entry:
    """What the user said.

    Attributes:
        peers: names of those to measure; empty: all.
        environments: folder for the environments, and for what peers make of the model.
        checkpoint: that the pack was exported from.
        adapters: task to folder, as at the export.
        task: that is measured.
    """

    peers: Sequence[str]
    environments: Path
    checkpoint: Path
    adapters: Mapping[str, Path]
    task: str


@dataclass(frozen=True)
class Contest:
    """Peers that can be measured, and why the others cannot.

    Attributes:
        peers: with their interpreters.
        source: what they run.
        missing: reasons by name.
        reference: files of the vectors of torch in float32, by workload.
    """

    peers: Mapping[Peer, Path]
    source: Source
    missing: Mapping[str, str]
    reference: Mapping[str, str]

    def runs(
        self, workloads: Sequence[Workload], threads: Sequence[int], seconds: float, folder: Path
    ) -> Iterator[Run]:
        """Every peer on every workload."""
        for workload in workloads:
            for count in threads:
                for number, (peer, python) in enumerate(self.peers.items()):
                    vectors = str(folder / f"peer-{number}-{workload.name}-{count}.npy")
                    job = PeerJob(
                        module=peer.module,
                        format=peer.format,
                        source=self.source,
                        threads=count,
                        inputs=workload.path,
                        mixed=workload.shape is None,
                        seconds=seconds,
                        vectors=vectors,
                    )
                    measure = partial(_ask, job, python, count)
                    batching = "" if workload.shape else OWN_BATCHING
                    yield Run(peer.name, True, workload, count, batching, vectors, measure)

    def describe(self) -> dict[str, Any]:
        """Names, versions and what is missing, for the results."""
        used = sorted({peer.environment for peer in self.peers})
        return {
            "environments": {name: ENVIRONMENTS[name] for name in used},
            "peers": {peer.name: {"arithmetic": peer.arithmetic, "reads": peer.reads} for peer in self.peers},
            "missing": dict(self.missing),
        }


def make_ready(entry: Entry, pack: Pack, workloads: Sequence[Workload], folder: Path) -> Contest:
    """Install, merge and convert what is not there yet; a peer for which that fails is missing.

    Raises:
        EmbedpackError: a peer is not known, the pack is not of this checkpoint, or torch cannot load it.
    """
    wanted = _wanted(entry.peers)
    models = entry.environments.resolve() / "models" / pack.manifest.source.fingerprint[:16] / entry.task
    models.mkdir(parents=True, exist_ok=True)
    reference = {item.name: str(folder / f"reference-{item.name}.npy") for item in workloads}
    source = Source(
        checkpoint=str(models / "checkpoint"),
        models=str(models),
        calibration=str(models / "calibration.json"),
        pooling=pack.manifest.pooling,
        pad_token_id=pack.manifest.text.pad_token_id,
    )
    job = MergeJob(
        checkpoint=str(entry.checkpoint.resolve()),
        adapters={task: str(path.resolve()) for task, path in entry.adapters.items()},
        task=entry.task,
        fingerprint=pack.manifest.source.fingerprint,
        merged=source.checkpoint,
        calibration=source.calibration,
        vectors={item.path: reference[item.name] for item in workloads},
    )
    in_fresh_process(job, "benchmarks.peers.merged")
    peers: dict[Peer, Path] = {}
    missing: dict[str, str] = {}
    with Progress("making peers ready", len(wanted)) as progress:
        for peer in wanted:
            try:
                peers[peer] = _ready(peer, source, entry.environments.resolve())
            except EmbedpackError as error:
                missing[peer.name] = reason_of(error)
            progress.advance(1)
    return Contest(peers, source, missing, reference)


def _wanted(names: Sequence[str]) -> list[Peer]:
    known = {peer.name: peer for peer in PEERS}
    for name in names:
        if name not in known:
            raise InputError(unknown("--peer", name, known))
    return [peer for peer in PEERS if not names or peer.name in names]


def _ready(peer: Peer, source: Source, environments: Path) -> Path:
    for step in peer.steps:
        _convert(step, source, python_of(environments, step.environment))
    return python_of(environments, peer.environment)


def _convert(step: Step, source: Source, python: Path) -> None:
    """Do a conversion unless it was done with the same versions."""
    versions = "\n".join(ENVIRONMENTS[step.environment])
    code = Path(__file__).with_name(f"{step.module}.py").read_text("utf-8")
    stamp = hashlib.sha256(f"{versions}\n{code}".encode()).hexdigest()
    done = Path(source.models) / f"{step.module}-{step.format}.done"
    if done.is_file() and done.read_text("utf-8") == stamp:
        return
    done.unlink(missing_ok=True)
    _ask(PrepareJob(module=step.module, format=step.format, source=source), python, 1)
    done.write_text(stamp, "utf-8")


def _ask(job: msgspec.Struct, python: Path, threads: int) -> Any:
    # Nothing of the caller's own environment, nothing from a hub, no more threads than the others have.
    variables = {
        "PYTHONPATH": "",
        "PYTHONNOUSERSITE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }
    return in_fresh_process(job, WORKER, variables, str(python), TIMEOUT)
