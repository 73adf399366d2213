"""Jobs: a worker process reads one as JSON on its command line, and prints its results as JSON.

Needs nothing but msgspec: peers' environments import it, and so do cold starts.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, TextIO

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Base of all jobs."""


class VariantJob(Job, frozen=True, kw_only=True):
    """Base of jobs on a variant of a pack.

    Attributes:
        pack: folder of the pack.
        variant: name of the variant.
        threads: number of threads of a call.
    """

    pack: str
    variant: str
    threads: int


def do_job(measures: Mapping[type[Job], Callable[[Any], object]], output: TextIO = sys.stdout) -> None:
    """Read the job on the command line, run the function of its type, write the result as JSON."""
    job = msgspec.json.decode(sys.argv[1], type=reduce(operator.or_, measures))
    output.write(msgspec.json.encode(measures[type(job)](job)).decode())
