"""What accumulates while a pack is written: graphs with their twins, tasks, variants, golden vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir as ir

from embedpack.encoder import Encoder
from embedpack.golden import Golden, GoldenCase, golden_vectors
from embedpack.pack import Accuracy, Task, Variant, VisionGraph, WeightsFormat
from embedpack.session import GraphSession
from embedpack.threads import available_cores
from embedpack.variant import graph_for_this_cpu
from embedpack_export.graph.builder import OPSET
from embedpack_export.passes.unsigned_weights import unsigned_weights
from embedpack_export.plan import ExportPlan
from embedpack_export.weight_store import WeightStore

# First release with CPU kernels for all operators that the graphs use (QuantizeLinear of opset 23 is the last).
MIN_ONNXRUNTIME = "1.24.1"


@dataclass(frozen=True)
class WrittenGraph:
    """A graph file, checked, with its twin for CPUs without VNNI if it needs one."""

    path: Path
    twin: Path | None

    @classmethod
    def complete(cls, path: Path) -> WrittenGraph:
        """Check a graph; where it has int8 products, write its twin beside it."""
        onnx.checker.check_model(str(path), full_check=True)
        model = ir.load(path)
        if not any(node.op_type == "MatMulIntegerToFloat" for node in model.graph):
            return cls(path, None)
        unsigned_weights(model)
        twin = path.with_name(f"{path.stem}.without-vnni.onnx")
        ir.save(model, twin)
        onnx.checker.check_model(str(twin), full_check=True)
        return cls(path, twin)

    @property
    def external_data(self) -> tuple[str, ...]:
        """Files that the weights are in."""
        tensors = [value.const_value for value in ir.load(self.path).graph.initializers.values()]
        return tuple(sorted({str(item.location) for item in tensors if isinstance(item, ir.ExternalTensor)}))

    @property
    def operators(self) -> tuple[str, ...]:
        """Kinds of its nodes."""
        return tuple(sorted({f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in ir.load(self.path).graph}))

    @cached_property
    def session(self) -> GraphSession:
        """The graph, opened."""
        name = graph_for_this_cpu(self.path.name, None if self.twin is None else self.twin.name)
        return GraphSession(self.path.with_name(name), available_cores(), mapped=True)


@dataclass(frozen=True)
class VariantGraphs:
    """The graphs of a variant; `vision` is None where there are no images."""

    text: WrittenGraph
    vision: WrittenGraph | None

    def golden(self, plan: ExportPlan, cases: list[GoldenCase]) -> list[list[float]]:
        """Vectors of golden inputs."""
        vision = self.vision
        opened = None if vision is None else lambda: vision.session
        vectors = golden_vectors(Encoder(self.text.session, plan.preparation, opened), cases)
        return [[round(float(value), 6) for value in vector] for vector in vectors]


@dataclass
class Draft:
    """A pack that is being written.

    Attributes:
        folder: of the pack.
        scratch: a folder for what is needed in between.
        weights: formats of the matrices.
    """

    folder: Path
    scratch: Path
    weights: tuple[WeightsFormat, ...]
    tasks: dict[str, Task] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    vision: dict[WeightsFormat, VisionGraph] = field(default_factory=dict)
    golden: Golden = field(default_factory=lambda: Golden(cases={}, vectors={}))
    _vision_graphs: dict[WeightsFormat, WrittenGraph] = field(default_factory=dict)

    @cached_property
    def store(self) -> WeightStore:
        """Takes the weights of all graphs."""
        return WeightStore(self.folder)

    def add_vision(self, weights: WeightsFormat) -> None:
        """Complete the vision graph of a weights format and take it in."""
        written = WrittenGraph.complete(self.folder / f"vision-{weights}.onnx")
        self._vision_graphs[weights] = written
        self.vision[weights] = VisionGraph(
            graph=written.path.name,
            graph_without_vnni=None if written.twin is None else written.twin.name,
            external_data=written.external_data,
            operators=written.operators,
        )

    def graphs(self, variant: str, weights: WeightsFormat) -> VariantGraphs:
        """Complete the graph of a variant; returns it with its vision graph."""
        return VariantGraphs(
            WrittenGraph.complete(self.folder / f"{variant}.onnx"), self._vision_graphs.get(weights)
        )

    def add_variant(self, name: str, task: str, weights: WeightsFormat, text: WrittenGraph, measured: Accuracy) -> None:
        """Take a merged variant in."""
        self.variants[name] = Variant(
            task=task,
            weights=weights,
            adapters="merged",
            adapter_files={},
            graph=text.path.name,
            graph_without_vnni=None if text.twin is None else text.twin.name,
            external_data=text.external_data,
            opset=OPSET,
            operators=text.operators,
            min_onnxruntime=MIN_ONNXRUNTIME,
            accuracy=measured,
        )
