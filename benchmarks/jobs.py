"""Jobs of worker processes: `python -m benchmarks.jobs MODULE:FUNCTION JOB` prints the function's result as JSON.

Depends on msgspec only, since the environments of other programs import it, and it must not slow cold starts.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from typing import get_type_hints

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all jobs."""


class VariantJob(Job, frozen=True, kw_only=True):
    """A variant of a pack, whose folder is `pack`, to measure with some threads a call."""

    pack: str
    variant: str
    threads: int


def main() -> None:
    """Do the job; stdout is for its result alone, and what libraries print goes to stderr."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    measure = pkgutil.resolve_name(sys.argv[1])
    job = msgspec.json.decode(sys.argv[2], type=get_type_hints(measure)["job"])
    results.write(msgspec.json.encode(measure(job)))
    results.close()


if __name__ == "__main__":
    main()
