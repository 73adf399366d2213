"""The torch reference of a task, whatever its family. Only this module of the package imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedpack.errors import CheckpointError, InputError
from embedpack.inputs.images import read_image
from embedpack.vectors.codes import Float32
from embedpack_export.evaluation.sets.data import Input
from embedpack_export.planning.plan import ExportPlan
from embedpack_export.reference.opening import TorchModel
from embedpack_export.reference.torch.model import ReferenceModel
from embedpack_export.reference.torch.qwen2_5_vl import V4Input, V4Reference, V4Vectors

# The family that has a reference of its own, which reads images too.
READS_IMAGES = "qwen2_5_vl"


def open_torch_model(plan: ExportPlan, task: str) -> TorchModel:
    """Load the checkpoint with the task's adapter beside its weights.

    Raises:
        CheckpointError: transformers or PEFT would not use the files exactly as they are, or there is no reference for
            such adapters.
    """
    if plan.checkpoint.model_type.replace("-", "_") != READS_IMAGES:
        return _Texts(ReferenceModel.from_plan(plan, task))
    adapter = plan.tasks[task].adapter
    own = plan.checkpoint.folder / "adapters"
    if adapter is not None and adapter.folder.resolve() != own.resolve():
        raise CheckpointError(
            f"{adapter.folder}: the torch reference of this family takes the adapters in {own} only; put it there, or "
            "leave --reference out to compare with the fp32 graph"
        )
    return _TextsAndImages(plan, V4Reference.from_checkpoint(plan.checkpoint.folder, None if adapter is None else task))


class _Texts:
    """A model that reads texts only."""

    def __init__(self, model: ReferenceModel) -> None:
        self._model = model

    def single(self, inputs: Sequence[Input], prompt: str) -> Float32:
        return self._model.encode(texts_of(inputs), prompt)

    def multi(self, inputs: Sequence[Input], prompt: str) -> list[Float32]:
        return self._model.encode_multi(texts_of(inputs), prompt)


class _TextsAndImages:
    """A model that gives single vectors and multi-vectors at once; those of the last call are kept for the next."""

    def __init__(self, plan: ExportPlan, model: V4Reference) -> None:
        self._tokenizer = plan.processor.tokenizer
        self._model = model
        self._last: tuple[Sequence[Input], str, V4Vectors] | None = None

    def single(self, inputs: Sequence[Input], prompt: str) -> Float32:
        return self._vectors(inputs, prompt).single

    def multi(self, inputs: Sequence[Input], prompt: str) -> list[Float32]:
        return self._vectors(inputs, prompt).multi

    def _vectors(self, inputs: Sequence[Input], prompt: str) -> V4Vectors:
        if self._last is None or self._last[:2] != (inputs, prompt):
            self._check_lengths([item for item in inputs if isinstance(item, str)], prompt)
            asked = [
                V4Input(image=read_image(item, index)) if isinstance(item, Path) else V4Input(text=prompt + item)
                for index, item in enumerate(inputs)
            ]
            self._last = (inputs, prompt, self._model.encode(asked))
        return self._last[2]

    def _check_lengths(self, texts: Sequence[str], prompt: str) -> None:
        cut = sum(item.cut for item in self._tokenizer.encode(texts, prompt))
        if cut:
            raise InputError(
                f"{cut} texts are longer than the {self._tokenizer.max_tokens} tokens of the pack, and the torch "
                "reference of this family does not cut texts; leave --reference out, or such sets"
            )


def texts_of(inputs: Sequence[Input]) -> list[str]:
    """Inputs that are all texts.

    Raises:
        InputError: one is an image.
    """
    texts = [item for item in inputs if isinstance(item, str)]
    if len(texts) < len(inputs):
        raise InputError("the torch reference of this family reads texts only; leave out sets with images")
    return texts
