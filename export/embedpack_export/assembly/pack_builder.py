"""Contents of the manifest, collected while a pack is written: graphs, tasks, variants, golden vectors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir

from embedpack.engine.golden import Golden
from embedpack.engine.golden_scores import GoldenScores
from embedpack.engine.graph_check import OPERATORS
from embedpack.errors import PackError
from embedpack.pack.accuracy_records import Accuracy
from embedpack.pack.manifest import Space, Task
from embedpack.pack.strict import WeightsFormat
from embedpack.pack.variants import Device, Variant, VisionGraph
from embedpack_export.graph.builder import OPSET
from embedpack_export.graph.external_data import WeightStore
from embedpack_export.graph.formats.int8 import STATIC_SCALE
from embedpack_export.graph.lint import check_forms
from embedpack_export.stages.score_run import RecordedScores
from embedpack_export.stages.task_run import RecordedVectors

logger = logging.getLogger("embedpack")

# First release with CPU kernels for all operators that the graphs use (QuantizeLinear of opset 23 is the last).
MIN_ONNXRUNTIME: Mapping[Device, str] = {
    "cpu": "1.24.1",
    # Oldest release whose assignment of the nodes was checked: Cos, Sin and Round of opset 22 are newer on GPUs.
    "cuda": "1.28.0",
}


@dataclass(frozen=True, eq=False)
class CheckedGraph:
    """An ONNX file that passed the checker of onnx, the lint of slow operators, and the runtime's list of operators."""

    path: Path
    graph: ir.Graph

    @classmethod
    def check(cls, path: Path, device: Device = "cpu") -> CheckedGraph:
        """Check a graph; PackError for a form that is slow or unsafe on its device, or an operator that is refused."""
        onnx.checker.check_model(str(path), full_check=True)
        model = ir.load(path)
        check_forms(model, path, device)
        written = cls(path, model.graph)
        for name in written.operators:
            if name not in OPERATORS:
                raise PackError(
                    f"{path.name}: the runtime refuses graphs with the operator {name!r}; "
                    "write another, or add it to the operators of embedpack/engine/graph_check.py"
                )
        return written

    @property
    def external_data(self) -> tuple[str, ...]:
        """Files of the weights."""
        tensors = [value.const_value for value in self.graph.initializers.values()]
        return tuple(sorted({str(item.location) for item in tensors if isinstance(item, ir.ExternalTensor)}))

    @property
    def static_activations(self) -> tuple[str, ...]:
        """Names of the activations that are quantized with a static scale, in the order of the graph."""
        nodes = [node for node in self.graph if node.op_type == "QuantizeLinear"]
        scales = [node.inputs[1].name or "" for node in nodes if node.inputs[1] is not None]
        return tuple(name.removesuffix(STATIC_SCALE) for name in scales if name.endswith(STATIC_SCALE))

    @property
    def operators(self) -> tuple[str, ...]:
        """Operators of the graph, as domain.operator."""
        return tuple(sorted({f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in self.graph.all_nodes()}))


@dataclass(frozen=True)
class VariantKind:
    """Task, weights format, device and adapter files that distinguish a variant."""

    task: str | None  # task of a merged variant; None: switchable
    weights: WeightsFormat
    device: Device
    adapter_files: Mapping[str, str]  # adapter files of a switchable variant by task


@dataclass
class PackBuilder:
    """A pack that is being written."""

    folder: Path
    scratch: Path  # folder of temporary files
    weights: tuple[WeightsFormat, ...]
    spaces: dict[str, Space] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    vision: dict[WeightsFormat, VisionGraph] = field(default_factory=dict)
    # Calibration inputs of each task, with their vectors in float32.
    recorded: dict[str, RecordedVectors] = field(default_factory=dict)
    golden: Golden = field(default_factory=lambda: Golden(cases={}, vectors={}))  # golden cases and vectors
    # Golden pairs and scores of a pack that gives scores.
    golden_scores: GoldenScores = field(default_factory=lambda: GoldenScores(pairs=[], scores={}))
    recorded_scores: dict[str, RecordedScores] = field(default_factory=dict)  # scores of each task in float32

    @cached_property
    def store(self) -> WeightStore:
        """Store of the weights of all graphs."""
        return WeightStore(self.folder)

    def add_vision(self, weights: WeightsFormat, device: Device, gives: Literal["tokens", "vectors"]) -> None:
        """Check the vision graph of a weights format for the device of its text graphs, and add it."""
        written = CheckedGraph.check(self.folder / f"vision-{weights}.onnx", device)
        self.vision[weights] = VisionGraph(
            gives=gives,
            graph=written.path.name,
            external_data=written.external_data,
            operators=written.operators,
        )

    def add_variant(self, name: str, kind: VariantKind, measured: Accuracy) -> None:
        """Check the text graph of a variant and add it."""
        text = CheckedGraph.check(self.folder / f"{name}.onnx", kind.device)
        self.variants[name] = Variant(
            task=kind.task,
            weights=kind.weights,
            device=kind.device,
            adapters="switchable" if kind.task is None else "merged",
            adapter_files=dict(kind.adapter_files),
            graph=text.path.name,
            external_data=text.external_data,
            opset=OPSET,
            operators=text.operators,
            static_activations=text.static_activations,
            min_onnxruntime=MIN_ONNXRUNTIME[kind.device],
            accuracy=measured,
        )
        if measured.single is not None:
            logger.info("%s: cosine to fp32 %.5f, lowest %.5f", name, measured.single.mean, measured.single.min)
        elif measured.multi is not None:
            logger.info("%s: cosine of tokens to fp32 %.5f", name, measured.multi.mean)
        elif measured.score is not None:
            largest, kendall = measured.score.largest_difference, measured.score.kendall
            logger.info("%s: largest difference of scores to fp32 %.2g, Kendall's tau %.4f", name, largest, kendall)
