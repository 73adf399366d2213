"""Parts of several tests of the exporter: settings of a quick export, edits of a checkpoint, exact messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from embedpack.storage.safetensors import open_safetensors, write_safetensors
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codebook import Codebook
from embedpack_export.families.bert import RULES
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.quantization.codebook_fit import CodebookFit, CodebookParts, FittedVectors
from embedpack_export.sources.adapter import Adapter
from embedpack_export.sources.checkpoint import read_checkpoint
from embedpack_export.sources.weights import Weights

Arrays = dict[str, npt.NDArray[Any]]

TEXTS = (
    "how do i reset a router ?",
    "the cat sleeps on a warm roof in the rain",
    "list files",
    "blue house, red door!",
)
QUERY = "encoder.layer.0.attention.self.query"
# Key of a peft file.
KEY = f"base_model.model.{QUERY}"


def exactly(message: str) -> str:
    """Pattern for `pytest.raises(match=...)` that takes this message and no other."""
    return rf"\A{re.escape(message)}\Z"


def calibration_file(folder: Path, texts: tuple[str, ...] = TEXTS) -> Path:
    """A few texts instead of the shipped ones: an export takes well under a second."""
    path = folder / "calibration.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def quick(checkpoint: Path, output: Path, **changes: Any) -> ExportSettings:
    """Settings of an export that calibrates on a few texts, without torch; the file lies beside the checkpoint."""
    given = {
        "checkpoint": checkpoint,
        "output": output,
        "calibrate": calibration_file(checkpoint.parent),
        "reference": "fp32 graph",
        **changes,
    }
    return ExportSettings(**given)


def centered_codebook(given: FittedVectors, ends: Sequence[int], *, parts: CodebookParts, seed: int) -> CodebookFit:
    """Fit in place of `fit_codebook`: the center alone, which does not depend on rounding."""
    center = given.center()
    return CodebookFit(Codebook.gaussian(center, len(center) ** -0.5), ("center",), {})


def center_helps(vectors: Float32, codebook: Codebook, precision: str) -> npt.NDArray[np.float64]:
    """Recall in place of `neighbour_recall`, which for few random vectors is chance."""
    return np.full(len(vectors), 1.0 if codebook.center.any() and not codebook.rotation else 0.5)


def edit_json(path: Path, **changes: Any) -> None:
    """Change values of a JSON file; None takes a key out."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def read_tensors(path: Path) -> Arrays:
    """All tensors of a file."""
    return {name: tensor.raw() for name, tensor in open_safetensors(path).tensors.items()}


def edit_tensors(path: Path, change: Callable[[Arrays], object]) -> None:
    """Change the tensors of a file; `change` works on the dictionary in place."""
    tensors = read_tensors(path)
    change(tensors)
    write_safetensors(path, tensors, {"format": "pt"})


def write_adapter(folder: Path, tensors: Mapping[str, npt.NDArray[Any]], **config: object) -> Path:
    """A peft folder by hand, for adapters that peft itself would not write."""
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def query_update(*, hidden: int = 32, rank: int = 4, seed: int = 1) -> Arrays:
    """Keys of a LoRA on the first query matrix."""
    rng = np.random.default_rng(seed)
    return {
        f"{KEY}.lora_A.weight": rng.standard_normal((rank, hidden)).astype(np.float32),
        f"{KEY}.lora_B.weight": rng.standard_normal((hidden, rank)).astype(np.float32),
    }


def weights_of(checkpoint: Path, adapter: Adapter | None = None) -> Weights:
    """The merged weights of a BERT checkpoint."""
    return Weights(read_checkpoint(checkpoint), adapter, RULES)


def take_all(weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor of these shapes, read as a family does, and the check for unused ones; some rows one by one."""
    taken = {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            matrix = weights.matrix(name.removesuffix(".weight"), (shape[0], shape[1]))
            taken[name] = np.concatenate(list(matrix.chunks()))
            some = np.arange(shape[0])[::-3]
            np.testing.assert_array_equal(matrix.rows(some), taken[name][some])
        else:
            taken[name] = weights.vector(name, shape[0])
    weights.check_all_used()
    return taken


def shapes_of(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a one-file checkpoint."""
    return {name: tensor.shape for name, tensor in open_safetensors(checkpoint / "model.safetensors").tensors.items()}


def tree(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pooled(hidden: npt.NDArray[np.float32], mask: npt.NDArray[np.int64], pooling: str) -> npt.NDArray[np.float64]:
    """Unit vectors of hidden states [batch, sequence, hidden], in float64."""
    states, real = hidden.astype(np.float64), mask[..., None].astype(np.float64)
    rows = np.arange(len(states))
    vectors = {
        "mean": (states * real).sum(1) / real.sum(1),
        "cls": states[:, 0],
        "last": states[rows, mask.sum(1) - 1],
    }[pooling]
    return cast("npt.NDArray[np.float64]", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def distance(found: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Largest 1 - cosine of two lists of vectors."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float((1 - cosines).max())
