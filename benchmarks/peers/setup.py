"""Setup of the peers: environments, the merged checkpoint, conversions; and the runs to measure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fresh_process import in_fresh_process
from benchmarks.jobs import Job
from benchmarks.peers.catalogue import PEERS, Peer, Step
from benchmarks.peers.environments import ENVIRONMENTS, python_of
from benchmarks.peers.job import ConvertJob, PeerJob, Source
from benchmarks.peers.merged import MergeJob
from benchmarks.speed.runs import Run, reason_of
from benchmarks.speed.workloads import Workload
from embedpack import EmbedpackError
from embedpack.errors import InputError, unknown
from embedpack.pack.folder import Pack
from embedpack.progress import Progress

WORKER = "benchmarks.peers.worker"
MERGE_WORKER = "benchmarks.peers.merged"
OWN_BATCHING = "its own"
# Seconds; a conversion or a measurement that takes longer hangs.
TIMEOUT = 1800


@dataclass(frozen=True)
class PeerOptions:
    """Options of the command line about peers.

    Attributes:
        peers: names of the peers to measure; empty for all.
        environments: folder of the environments and of the converted models.
        checkpoint: folder of the checkpoint that the pack was exported from.
        adapters: folders of the adapters by task, as at the export.
        task: task to measure.
    """

    peers: Sequence[str]
    environments: Path
    checkpoint: Path
    adapters: Mapping[str, Path]
    task: str


@dataclass(frozen=True)
class PeerSetup:
    """Peers that are ready to be measured.

    Attributes:
        peers: interpreter of every peer's environment.
        source: the model that they run.
        missing: reason of every peer that could not be set up, by its name.
        reference: files of the vectors of torch in float32, by workload.
    """

    peers: Mapping[Peer, Path]
    source: Source
    missing: Mapping[str, str]
    reference: Mapping[str, str]

    def runs(
        self, workloads: Sequence[Workload], threads: Sequence[int], seconds: float, folder: Path
    ) -> Iterator[Run]:
        """Runs of every peer on every workload."""
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
                    measure = partial(_run_worker, job, python, count)
                    batching = "" if workload.shape else OWN_BATCHING
                    yield Run(peer.name, True, workload, count, batching, vectors, measure)

    def describe(self) -> dict[str, Any]:
        """Names, versions and missing peers, for the results file."""
        used = sorted({peer.environment for peer in self.peers})
        return {
            "environments": {name: ENVIRONMENTS[name] for name in used},
            "peers": {peer.name: {"arithmetic": peer.arithmetic, "reads": peer.reads} for peer in self.peers},
            "missing": dict(self.missing),
        }


def set_up_peers(options: PeerOptions, pack: Pack, workloads: Sequence[Workload], folder: Path) -> PeerSetup:
    """Install environments, merge the checkpoint and convert it, unless done before.

    A peer that cannot be set up is missing in the results.

    Raises:
        EmbedpackError: a peer's name is unknown, the pack is of another checkpoint, or torch cannot load it.
    """
    selected = _selected(options.peers)
    environments = options.environments.resolve()
    models = environments / "models" / pack.manifest.source.fingerprint[:16] / options.task
    models.mkdir(parents=True, exist_ok=True)
    reference = {workload.name: str(folder / f"reference-{workload.name}.npy") for workload in workloads}
    source = Source(
        checkpoint=str(models / "checkpoint"),
        models=str(models),
        calibration=str(models / "calibration.json"),
        pooling=pack.manifest.pooling,
        pad_token_id=pack.manifest.text.pad_token_id,
    )
    job = MergeJob(
        checkpoint=str(options.checkpoint.resolve()),
        adapters={task: str(path.resolve()) for task, path in options.adapters.items()},
        task=options.task,
        fingerprint=pack.manifest.source.fingerprint,
        merged=source.checkpoint,
        calibration=source.calibration,
        vectors={workload.path: reference[workload.name] for workload in workloads},
    )
    in_fresh_process(job, MERGE_WORKER)
    peers: dict[Peer, Path] = {}
    missing: dict[str, str] = {}
    with Progress("setting up peers", len(selected)) as progress:
        for peer in selected:
            try:
                peers[peer] = _set_up(peer, source, environments)
            except EmbedpackError as error:
                missing[peer.name] = reason_of(error)
            progress.advance(1)
    return PeerSetup(peers, source, missing, reference)


def _selected(names: Sequence[str]) -> list[Peer]:
    by_name = {peer.name: peer for peer in PEERS}
    for name in names:
        if name not in by_name:
            raise InputError(unknown("--peer", name, by_name))
    return [peer for peer in PEERS if not names or peer.name in names]


def _set_up(peer: Peer, source: Source, environments: Path) -> Path:
    """Convert the model for a peer and return the interpreter of its environment."""
    for step in peer.steps:
        _convert(step, source, python_of(environments, step.environment))
    return python_of(environments, peer.environment)


def _convert(step: Step, source: Source, python: Path) -> None:
    """Convert the model, unless that was done with the same versions and code."""
    versions = "\n".join(ENVIRONMENTS[step.environment])
    code = Path(__file__).with_name(f"{step.module}.py").read_text("utf-8")
    digest = hashlib.sha256(f"{versions}\n{code}".encode()).hexdigest()
    stamp = Path(source.models) / f"{step.module}-{step.format}.done"
    if stamp.is_file() and stamp.read_text("utf-8") == digest:
        return
    stamp.unlink(missing_ok=True)
    _run_worker(ConvertJob(module=step.module, format=step.format, source=source), python, 1)
    stamp.write_text(digest, "utf-8")


def _run_worker(job: Job, python: Path, threads: int) -> Any:
    """Run a job with no packages but the environment's, no model hub, and a fixed number of threads."""
    variables = {
        "PYTHONPATH": "",
        "PYTHONNOUSERSITE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }
    return in_fresh_process(job, WORKER, variables, str(python), TIMEOUT)
