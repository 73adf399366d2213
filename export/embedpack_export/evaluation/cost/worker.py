"""One measurement in a separate process: python -m embedpack_export.evaluation.cost.worker JOB.json."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from embedpack import Embedder
from embedpack.host.memory import peak_memory
from embedpack_export.evaluation.cost.measure import CostJob, CostSample
from embedpack_export.evaluation.scoring.encoding import encode

# Texts encoded before the measurement.
WARM_UP = 8


def measure(job: CostJob) -> CostSample:
    """Open the variant and encode the texts."""
    model = Embedder(job.pack, variant=job.variant, threads=job.threads)
    encode(model, job.task, job.texts[:WARM_UP], "document")
    begin = time.perf_counter()
    encode(model, job.task, job.texts, "document")
    seconds = time.perf_counter() - begin
    return CostSample(seconds=seconds, peak_rss_bytes=peak_memory())


if __name__ == "__main__":
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=CostJob)
    sys.stdout.write(msgspec.json.encode(measure(job)).decode())
