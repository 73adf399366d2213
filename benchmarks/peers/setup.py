"""Setup of the peers: environments, the merged checkpoint, conversions; and the runs to measure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fresh_process import AnyJob, in_fresh_process
from benchmarks.peers.catalogue import PEERS, Peer, Step
from benchmarks.peers.environments import ENVIRONMENTS, python_of
from benchmarks.peers.job import ConvertJob, PeerJob, PeerSource
from benchmarks.peers.merged import MergeJob, merge
from benchmarks.peers.worker import convert, measure
from benchmarks.speed.runs import Run, reason_of
from benchmarks.speed.workloads import Workload
from embedpack import EmbedpackError
from embedpack.errors import InputError, unknown
from embedpack.pack.folder import Pack
from embedpack.pack.heads import single_vectors
from embedpack.progress import Progress

OWN_BATCHING = "its own"
# Seconds; a conversion or a measurement that takes longer hangs.
TIMEOUT = 1800


@dataclass(frozen=True)
class PeerOptions:
    """Options of the command line about peers; without names of programs or forms all are measured.

    `environments` is the folder of the environments and of the converted models; checkpoint and adapters, by task, are
    those that the pack was exported from.
    """

    peers: Sequence[str]
    environments: Path
    checkpoint: Path
    adapters: Mapping[str, Path]
    task: str


@dataclass(frozen=True)
class PeerSetup:
    """Peers with the interpreters of their environments, and the reasons of missing ones, by name.

    `reference` has the files of the vectors of torch in float32, by workload.
    """

    peers: Mapping[Peer, Path]
    source: PeerSource
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
                        budget=peer.budget,
                    )
                    call = partial(_run_worker, measure, job, python, count)
                    batching = "" if workload.shape else OWN_BATCHING
                    yield Run(peer.name, True, workload, count, batching, vectors, call)

    def describe(self) -> dict[str, Any]:
        """Names, versions and missing peers, for the results file."""
        used = sorted({peer.environment for peer in self.peers})
        return {
            "environments": {name: ENVIRONMENTS[name] for name in used},
            "peers": {peer.name: peer.describe() for peer in self.peers},
            "missing": dict(self.missing),
        }


def set_up_peers(options: PeerOptions, pack: Pack, workloads: Sequence[Workload], folder: Path) -> PeerSetup:
    """Install environments, merge the checkpoint and convert it, unless done before.

    A peer that cannot be set up is missing in the results.

    Raises:
        EmbedpackError: a peer's name is unknown, the pack is of another checkpoint, or torch cannot load it.
    """
    names = {name for peer in PEERS for name in (peer.program, peer.name)}
    for name in options.peers:
        if name not in names:
            raise InputError(unknown("--peer", name, sorted(names)))
    selected = [peer for peer in PEERS if not options.peers or {peer.program, peer.name}.intersection(options.peers)]
    environments = options.environments.resolve()
    models = environments / "models" / pack.manifest.source.fingerprint[:16] / options.task
    models.mkdir(parents=True, exist_ok=True)
    reference = {workload.name: str(folder / f"reference-{workload.name}.npy") for workload in workloads}
    source = PeerSource(
        checkpoint=str(models / "checkpoint"),
        models=str(models),
        calibration=str(models / "calibration.json"),
        pooling=single_vectors(pack).pooling,
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
    in_fresh_process(merge, job)
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


def _set_up(peer: Peer, source: PeerSource, environments: Path) -> Path:
    """Convert the model for a peer and return the interpreter of its environment."""
    for step in peer.steps:
        _convert(step, source, python_of(environments, step.environment))
    return python_of(environments, peer.environment)


def _convert(step: Step, source: PeerSource, python: Path) -> None:
    """Convert the model, unless that was done with the same versions and code."""
    versions = "\n".join(ENVIRONMENTS[step.environment])
    code = Path(__file__).with_name(f"{step.module}.py").read_text("utf-8")
    digest = hashlib.sha256(f"{versions}\n{code}".encode()).hexdigest()
    stamp = Path(source.models) / f"{step.module}-{step.format}.done"
    if stamp.is_file() and stamp.read_text("utf-8") == digest:
        return
    stamp.unlink(missing_ok=True)
    _run_worker(convert, ConvertJob(module=step.module, format=step.format, source=source), python, 1)
    stamp.write_text(digest, "utf-8")


def _run_worker(measure: Callable[[AnyJob], Any], job: AnyJob, python: Path, threads: int) -> Any:
    """Run a job with no packages but the environment's, no model hub, and a fixed number of threads."""
    variables = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1"}
    variables |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return in_fresh_process(measure, job, variables, str(python), TIMEOUT)
