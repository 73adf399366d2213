"""onnxruntime sessions of the graphs of a pack."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedpack.errors import CapacityError, EmbedpackError, PackError
from embedpack.host.onnxruntime import ort, ort_errors
from embedpack.pack.graph_io import TOKEN_EMBEDDINGS, TOKEN_LIMIT

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

# onnxruntime raises one class per status code and gives them no common base.
ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    error for error in vars(ort_errors).values() if isinstance(error, type) and issubclass(error, Exception)
)
# onnxruntime's Python code raises ValueError if a graph has no such output or input.
RUN_ERRORS: tuple[type[Exception], ...] = (ValueError, *ORT_ERRORS)
# Name of the weights file next to a prepacked graph.
SAVED_WEIGHTS = "weights.bin"
# Smaller tensors stay in the graph's file.
SAVED_MIN_BYTES = 1024
# Spin time before a worker sleeps, about the wake-up latency. 0 made two threads slower than one on short texts;
# milliseconds did on busy hosts.
SPIN_MICROSECONDS = "20"
# Value of the input `token_limit` where no token vectors are wanted.
ONE_TOKEN = np.ones(1, np.int64)
# Parts of onnxruntime's messages if memory is short.
ALLOCATION_FAILURES = (
    "bad_alloc", "Failed to allocate memory", "bad allocation", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
)  # fmt: skip
# Parts of its messages if the prepacked graph cannot be written; they do not give the system's reason.
SAVE_FAILURES = ("Failed to write", "serialization failed")
# onnxruntime raises RuntimeError for a file that is not an adapter. Messages about names that are not UTF-8 are
# ValueErrors.
LOAD_ERRORS: tuple[type[Exception], ...] = (RuntimeError, *RUN_ERRORS)


def check_onnxruntime(minimum: str) -> None:
    """Raise PackError if the installed onnxruntime is older than `minimum`."""
    installed = re.findall(r"\d+", ort.__version__)[:3]
    if [int(part) for part in installed] < [int(part) for part in minimum.split(".")]:
        raise PackError(
            f"this pack needs onnxruntime {minimum} or newer, found {ort.__version__}; run: pip install -U onnxruntime"
        )


class Adapter:
    """A low-rank adapter of a switchable graph, mapped from its file."""

    def __init__(self, path: Path) -> None:
        """Open an adapter file; PackError if it is not one."""
        self._adapter = ort.LoraAdapter()
        try:
            self._adapter.Load(str(path.resolve()))
        except LOAD_ERRORS as cause:
            raise ort_error(f"{path}: onnxruntime cannot load this adapter", cause) from cause

    def activate(self, options: ort.RunOptions) -> None:
        """Make this the adapter of a run."""
        options.add_active_adapter(self._adapter)


class Session(Protocol):
    """A loaded graph on any device."""

    def run(
        self,
        outputs: Sequence[str],
        feeds: Feeds,
        adapter: Adapter | None = None,
        *,
        release_memory: bool = False,
    ) -> list[Array]:
        """See `GraphSession.run`."""


def session_options(threads: int) -> ort.SessionOptions:
    """Options that sessions of all devices share."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The graphs hold the final operators. Higher levels would fuse Add + LayerNormalization into
    # SkipLayerNormalization, which is slower on CPU.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # A loaded model that waits for work must not burn the host's cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
    # Errors are raised, so onnxruntime must not print them as well.
    options.log_severity_level = 4
    return options


class GraphSession:
    """A loaded graph."""

    def __init__(self, graph: Path, threads: int, *, mapped: bool = False, save_to: Path | None = None) -> None:
        """Load a graph; PackError if onnxruntime cannot load it, CapacityError if the memory or the disk is full.

        Args:
            graph: path of the graph file.
            threads: number of threads of a run.
            mapped: leave the weights in mapped files, instead of packed copies that matrix products read faster.
            save_to: path to save the prepacked graph at, with SAVED_WEIGHTS next to it: all weights and the packed
                copies. Loaded again, both are mapped; they fit this CPU and this onnxruntime only.
        """
        options = session_options(threads)
        if mapped:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if save_to is not None:
            _save(options, save_to)
        try:
            self._session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except LOAD_ERRORS as cause:
            if save_to is not None and any(sign in str(cause) for sign in SAVE_FAILURES):
                raise CapacityError(
                    f"{save_to}: onnxruntime cannot write it; free some space on the disk, or check its permissions"
                ) from cause
            raise ort_error(f"{graph}: onnxruntime {ort.__version__} cannot load it", cause) from cause
        self._graph = graph
        self._has_token_limit = any(each.name == TOKEN_LIMIT for each in self._session.get_overridable_initializers())

    def run(
        self,
        outputs: Sequence[str],
        feeds: Feeds,
        adapter: Adapter | None = None,
        *,
        release_memory: bool = False,
    ) -> list[Array]:
        """Compute outputs of the graph, in the order of their names; `embedpack.pack.graph_io` has dtypes and shapes.

        `release_memory` returns the memory of this run to the system instead of keeping it for the next. PackError if
        the graph has no such output, or fails on these inputs.
        """
        options = _run_options(adapter, release_memory=release_memory)
        inputs = dict(feeds)
        # onnxruntime computes all outputs, whatever is asked for.
        if self._has_token_limit and not any(output.startswith(TOKEN_EMBEDDINGS) for output in outputs):
            inputs[TOKEN_LIMIT] = ONE_TOKEN
        try:
            results = self._session.run(list(outputs), inputs, options)
        except RUN_ERRORS as cause:
            raise ort_error(f"{self._graph}: {', '.join(outputs)} cannot be computed", cause) from cause
        return [np.asarray(result) for result in results]


def _run_options(adapter: Adapter | None, *, release_memory: bool) -> ort.RunOptions | None:
    if adapter is None and not release_memory:
        return None
    options = ort.RunOptions()
    if adapter is not None:
        adapter.activate(options)
    if release_memory:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def ort_error(message: str, cause: Exception) -> EmbedpackError:
    """PackError with the first line of a cause; CapacityError if onnxruntime could not allocate memory."""
    reason = next(iter(str(cause).splitlines()), type(cause).__name__)
    if any(sign in reason for sign in ALLOCATION_FAILURES):
        return CapacityError(f"{message}: the memory is full ({reason}); free some, or pass smaller inputs")
    return PackError(f"{message}: {reason}")


def _save(options: ort.SessionOptions, path: Path) -> None:
    options.optimized_model_filepath = str(path)
    for name, value in (
        ("optimized_model_external_initializers_file_name", SAVED_WEIGHTS),
        ("optimized_model_external_initializers_min_size_in_bytes", str(SAVED_MIN_BYTES)),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{name}", value)
