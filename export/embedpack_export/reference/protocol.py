"""Reference: the full-precision vectors that a pack is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedpack.inputs.prompt_rules import PromptOrPrefix
from embedpack.pack.manifest import Pooling
from embedpack.vectors.arrays import Float32
from embedpack_export.planning.settings import ReferenceKind

# A text, the file of an image, or an RGB image, uint8 [height, width, 3].
Input = str | Path | npt.NDArray[np.uint8]


class Reference(Protocol):
    """Full-precision vectors: of length 1, unless the model gives single vectors lengths of their own.

    Attributes:
        kind: name of the reference in manifests and results.
        packages: distributions that compute the vectors; their versions are recorded.

    Arguments of all methods:
        task: task whose adapter is applied; None: the backbone alone.
        inputs: texts, files of images and images.
        prompt: prompt of every text, or its prefix alone.
        pooling: pooling of single vectors; None: that of the model.
    """

    kind: ReferenceKind
    packages: tuple[str, ...]

    def covers(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> bool:
        """True if there are vectors of all these inputs."""

    def single(
        self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "", pooling: Pooling | None = None
    ) -> Float32:
        """Single vectors, float32 [inputs, dimensions].

        Raises:
            CheckpointError: the model cannot be loaded.
            InputError: an input cannot be used.
        """

    def multi(self, task: str | None, inputs: Sequence[Input], prompt: PromptOrPrefix = "") -> list[Float32]:
        """Multi-vectors, for each input float32 [tokens, dimensions].

        Raises:
            CheckpointError, InputError: as `single`, or the model has no head for multi-vectors.
        """

    def close(self) -> None:
        """Release the memory of loaded models; the next call loads them again."""
