"""An onnxruntime with a GPU that is the CPU: what is asked of it is recorded, and it computes the same."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from embedpack.engine import cuda_session
from embedpack.engine.devices import CPU_PROVIDER, CUDA_PROVIDER

GIGABYTE = 10**9
FULL = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc Failed to allocate memory for requested buffer"


@dataclass
class FakeCuda:
    """The GPU; the lists grow as it is used.

    Attributes:
        free: free bytes of its memory; None: there is none.
        max_tokens: tokens of the largest batch that fits.
        starts: false if onnxruntime cannot start the provider.
        on_cpu: names or operators of nodes that it has no kernel for.
        batches: shapes of `input_ids` of all runs, also those that failed.
        copied: number of tensors that were copied to the device.
        shrunk: runs that gave memory back.
        printed: text that onnxruntime prints when it loads its libraries.
        providers: providers that the last session was asked for.
    """

    free: int | None = 16 * GIGABYTE
    max_tokens: int = 10**9
    starts: bool = True
    on_cpu: tuple[str, ...] = ("Shape", "Gather", "Concat", "Squeeze")
    batches: list[tuple[int, ...]] = field(default_factory=list)
    copied: int = 0
    shrunk: int = 0
    printed: str = ""
    providers: list[Any] = field(default_factory=list)

    def install(self, patch: pytest.MonkeyPatch) -> FakeCuda:
        """Take the place of onnxruntime and of the driver."""
        patch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
        patch.setattr("embedpack.host.gpu.free_memory", lambda: self.free)
        names = {name: getattr(ort, name) for name in ("AdapterFormat", "LoraAdapter", "__version__")}
        names |= {
            "InferenceSession": self._session,
            "RunOptions": self._run_options,
            "preload_dlls": lambda: sys.stdout.write(self.printed),
            "set_default_logger_severity": lambda level: None,
        }
        patch.setattr(
            cuda_session, "ort", SimpleNamespace(**names, OrtValue=SimpleNamespace(ortvalue_from_numpy=self._copied))
        )
        return self

    def _session(self, path: str, options: ort.SessionOptions, providers: list[Any]) -> _Session:
        self.providers = providers
        return _Session(self, ort.InferenceSession(path, options, providers=[CPU_PROVIDER]))

    def _copied(self, values: Any, device: str, number: int) -> Any:
        assert (device, number) == ("cuda", 0)
        self.copied += 1
        # On the CPU onnxruntime would share the memory, which a GPU has not.
        return ort.OrtValue.ortvalue_from_numpy(np.array(values))

    def _run_options(self) -> _RunOptions:
        return _RunOptions(self)


class _RunOptions:
    """Options of a run: the CPU does not know the arena of the GPU."""

    def __init__(self, gpu: FakeCuda) -> None:
        self.gpu = gpu

    def add_run_config_entry(self, name: str, value: str) -> None:
        assert (name, value) == ("memory.enable_memory_arena_shrinkage", "gpu:0")
        self.gpu.shrunk += 1


class _Session:
    def __init__(self, gpu: FakeCuda, session: ort.InferenceSession) -> None:
        self._gpu, self._real, self.fallback = gpu, session, True

    def disable_fallback(self) -> None:
        self.fallback = False

    def get_providers(self) -> list[str]:
        return [CUDA_PROVIDER, CPU_PROVIDER] if self._gpu.starts else [CPU_PROVIDER]

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        nodes = [node for group in self._real.get_provider_graph_assignment_info() for node in group.get_nodes()]
        names = self._gpu.on_cpu
        groups: dict[str, list[Any]] = {CUDA_PROVIDER: [], CPU_PROVIDER: []}
        shapes = {*_of_shapes(str(self._real._model_path))}
        for node in nodes:
            fallen = node.name in names or (node.op_type in names and node.name in shapes)
            groups[CPU_PROVIDER if fallen else CUDA_PROVIDER].append(node)
        return [
            SimpleNamespace(ep_name=provider, get_nodes=lambda members=members: members)
            for provider, members in groups.items()
        ]

    def io_binding(self) -> _Binding:
        return _Binding(self._gpu, self._real.io_binding())

    def run_with_iobinding(self, binding: _Binding, options: _RunOptions) -> None:
        assert not self.fallback
        if binding.tokens > self._gpu.max_tokens:
            raise RuntimeError(FULL)
        self._real.run_with_iobinding(binding.real, None)


class _Binding:
    def __init__(self, gpu: FakeCuda, real: ort.IOBinding) -> None:
        self.real, self.tokens, self._gpu = real, 0, gpu

    def bind_cpu_input(self, name: str, values: Any) -> None:
        if name == "input_ids":
            self._gpu.batches.append(values.shape)
            self.tokens = values.size
        self.real.bind_cpu_input(name, values)

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.real.bind_ortvalue_input(name, value)

    def bind_output(self, name: str) -> None:
        self.real.bind_output(name)

    def copy_outputs_to_cpu(self) -> Sequence[Any]:
        return self.real.copy_outputs_to_cpu()


def _of_shapes(path: str) -> frozenset[str]:
    from embedpack.engine.node_assignment import _shape_nodes

    return _shape_nodes(Path(path).read_bytes())
