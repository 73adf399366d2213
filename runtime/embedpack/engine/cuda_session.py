"""onnxruntime sessions on a GPU: no silent fallback, inputs and outputs bound, adapters resident on the device."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedpack.engine.devices import CPU_PROVIDER, CUDA_PROVIDER
from embedpack.engine.node_assignment import RECORD, assigned_nodes, check_assignment
from embedpack.engine.session import LOAD_ERRORS, Adapter, Array, Feeds, ort_error, session_options
from embedpack.errors import PackError
from embedpack.host.onnxruntime import ort

logger = logging.getLogger("embedpack")

DEVICE, DEVICE_ID = "cuda", 0
# Level of onnxruntime's log.
ERRORS = 3
# Products of float32 stay exact, and memory grows by what a batch needs rather than by doubling.
PROVIDER_OPTIONS = {"device_id": str(DEVICE_ID), "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}


class CudaAdapter(Adapter):
    """An adapter whose tensors are in the memory of the GPU, copied there once."""

    def __init__(self, path: Path) -> None:
        """Open an adapter file and copy it; PackError if it is not one, CapacityError if it does not fit."""
        super().__init__(path)
        try:
            stored = ort.AdapterFormat.read_adapter(str(path.resolve())).get_parameters()
            self.values: Mapping[str, Any] = {
                name: ort.OrtValue.ortvalue_from_numpy(value.numpy(), DEVICE, DEVICE_ID)
                for name, value in stored.items()
            }
        except LOAD_ERRORS as cause:
            raise ort_error(f"{path}: this adapter cannot be copied to the GPU", cause) from cause


class CudaSession:
    """A loaded graph on a GPU; the methods are those of `GraphSession`."""

    def __init__(self, graph: Path, threads: int) -> None:
        """Load a graph; PackError if a node other than those of shapes would run on the CPU, else as `GraphSession`."""
        _load_libraries()
        options = session_options(threads)
        options.add_session_config_entry(RECORD, "1")
        providers = [(CUDA_PROVIDER, PROVIDER_OPTIONS), CPU_PROVIDER]
        try:
            self._session = ort.InferenceSession(str(graph), options, providers=providers)
            # A run that fails must not be repeated on the CPU.
            self._session.disable_fallback()
        except LOAD_ERRORS as cause:
            raise ort_error(f"{graph}: onnxruntime {ort.__version__} cannot load it on the GPU", cause) from cause
        found = self._session.get_providers()
        if CUDA_PROVIDER not in found:
            raise PackError(
                f"{graph}: onnxruntime {ort.__version__} could not start {CUDA_PROVIDER} and took {', '.join(found)}; "
                "check the driver, and the libraries of: pip install 'embedpack[gpu]'"
            )
        check_assignment(str(graph), assigned_nodes(self._session), graph.read_bytes())
        self._graph = graph

    def run(
        self,
        outputs: Sequence[str],
        feeds: Feeds,
        adapter: Adapter | None = None,
        *,
        release_memory: bool = False,
    ) -> list[Array]:
        """Compute outputs of the graph as `GraphSession.run`; CapacityError if the memory of the GPU is full."""
        options = ort.RunOptions()
        if release_memory:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{DEVICE_ID}")
        try:
            binding = self._session.io_binding()
            for name, values in feeds.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(values))
            if isinstance(adapter, CudaAdapter):
                for name, value in adapter.values.items():
                    binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name)
            self._session.run_with_iobinding(binding, options)
            return list(binding.copy_outputs_to_cpu())
        except LOAD_ERRORS as cause:
            raise ort_error(f"{self._graph}: {', '.join(outputs)} cannot be computed", cause) from cause


def _load_libraries() -> None:
    """Load the CUDA libraries of the extra; onnxruntime prints what is missing, which its session reports again."""
    # Its warnings are about its own plans; errors have the name of a library that is missing.
    ort.set_default_logger_severity(ERRORS)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ort.preload_dlls()
    if printed.getvalue().strip():
        logger.debug("%s", printed.getvalue().strip())
