"""One measurement in a process of its own: python -m embedpack_export.evaluation.cost.worker JOB.json."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import msgspec

from embedpack import Embedder
from embedpack_export.evaluation.cost.measure import CostFound, CostJob
from embedpack_export.evaluation.scoring.encoding import encode

# Embedded first, to allocate and warm up what there is to.
WARM_UP = 8
# Unit of ru_maxrss.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def measure(job: CostJob) -> CostFound:
    """Open the variant, embed the texts."""
    model = Embedder(job.pack, variant=job.variant, threads=job.threads)
    encode(model, job.task, job.texts[:WARM_UP], "passage")
    begin = time.perf_counter()
    encode(model, job.task, job.texts, "passage")
    seconds = time.perf_counter() - begin
    return CostFound(seconds=seconds, peak_rss_bytes=peak_rss())


def peak_rss() -> int:
    """Bytes. On Linux getrusage would count what the process that started this one held at that moment."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


if __name__ == "__main__":
    asked = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=CostJob)
    sys.stdout.write(msgspec.json.encode(measure(asked)).decode())
