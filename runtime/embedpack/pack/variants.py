"""Graphs in the manifest: text graphs by variant, vision graphs by weights format."""

from __future__ import annotations

from typing import Literal

import msgspec

from embedpack.pack.accuracy_records import Accuracy, Check
from embedpack.pack.strict import AdapterMode, Strict, Version, WeightsFormat

Device = Literal["cpu", "cuda"]


def devices_of(weights: WeightsFormat) -> tuple[Device, ...]:
    """Devices that graphs of a weights format may be made for."""
    if weights == "int4":
        return "cpu", "cuda"
    return ("cuda",) if weights == "fp16" else ("cpu",)


class VisionGraph(Strict, frozen=True):
    """The vision graph of a weights format.

    `gives`: "tokens": vectors of image tokens, which are inputs of the text graph; "vectors": finished single vectors.
    The other fields are those of `Variant`.
    """

    gives: Literal["tokens", "vectors"]
    graph: str
    external_data: tuple[str, ...]
    operators: tuple[str, ...]

    @property
    def graph_files(self) -> tuple[str, ...]:
        """The graph and its weights."""
        return self.graph, *self.external_data


class Variant(Strict, frozen=True):
    """One loadable graph.

    Attributes:
        task: task of a merged variant; null for switchable ones, which have all tasks.
        device: device that the graph is made for.
        adapter_files: adapters of a switchable variant, for the tasks that have one, in onnxruntime's format; graph
            inputs at run time.
        graph, external_data: file of the graph, files of its weights.
        opset, operators: ONNX opset and operators of the graph.
        min_onnxruntime: oldest release that runs the graph.
        accuracy: accuracy measured while the graph was written.
        static_activations: activations with a static scale; the others have one for each row.
        checks: accuracy checks of the finished pack by task.
    """

    task: str | None
    weights: WeightsFormat
    device: Device
    adapters: AdapterMode
    adapter_files: dict[str, str]
    graph: str
    external_data: tuple[str, ...]
    opset: int
    operators: tuple[str, ...]
    min_onnxruntime: Version
    accuracy: Accuracy
    static_activations: tuple[str, ...]
    checks: dict[str, Check] = msgspec.field(default_factory=dict)

    @property
    def graph_files(self) -> tuple[str, ...]:
        """The graph and its weights, without adapters."""
        return self.graph, *self.external_data

    def adapter_of(self, task: str) -> str | None:
        """Name of the adapter that runs of a task take as inputs; None: it has none, or it is part of the graph."""
        return task if task in self.adapter_files else None
