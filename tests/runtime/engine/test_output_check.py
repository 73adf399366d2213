"""Arrays of graphs with other shapes or dtypes are errors of the pack."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import PackError
from embedpack.engine.output_check import OutputCheck, check_array

CHECK = OutputCheck(single=16, multi=8)
BATCH = {"inputs": 3, "tokens": 5, "parts": 2}


def zeros(*shape: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[np.generic]:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("output", "values"),
    [
        ("sentence_embedding", zeros(3, 16)),
        ("sentence_embedding_int8", zeros(3, 16, dtype=np.int8)),
        ("sentence_embedding_binary", zeros(3, 2, dtype=np.uint8)),
        ("token_embeddings", zeros(3, 5, 8)),
        ("token_embeddings_int8", zeros(3, 5, 8, dtype=np.int8)),
        ("chunk_sums", zeros(3, 2, 16)),
        ("mark_vectors", zeros(6, 9)),
    ],
)
def test_outputs_of_their_shapes_pass(output: str, values: npt.NDArray[np.generic]) -> None:
    CHECK.check(output, values, **BATCH)


# (16,) and (1, 16) could be broadcast to all inputs of the batch.
@pytest.mark.parametrize("shape", [(16,), (1, 16), (3, 1), (3, 8), (4, 16), (3, 16, 1), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PackError) as caught:
        CHECK.check("sentence_embedding", zeros(*shape), **BATCH)
    assert str(caught.value) == (
        f"the graph's sentence_embedding is float32 {list(shape)}, expected float32 [3, 16]; do not use this pack"
    )


@pytest.mark.parametrize("shape", [(3, 9), (6,), (6, 9, 1), ()])
def test_vectors_at_marks_have_a_row_for_each_mark(shape: tuple[int, ...]) -> None:
    with pytest.raises(PackError, match=r"the graph's mark_vectors is float32 .*, expected float32 \[6, [19]\]"):
        CHECK.check("mark_vectors", zeros(*shape), **BATCH)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int64])
def test_other_dtypes_are_refused(dtype: npt.DTypeLike) -> None:
    with pytest.raises(PackError, match=r"is \w+ \[3, 16\], expected float32 \[3, 16\]"):
        CHECK.check("sentence_embedding", zeros(3, 16, dtype=dtype), **BATCH)


def test_vectors_of_images_have_a_row_for_each_token() -> None:
    check_array("image_embeds", zeros(4, 16), [4, 16], np.float32)
    with pytest.raises(PackError, match=r"image_embeds is float32 \[1, 16\], expected float32 \[4, 16\]"):
        check_array("image_embeds", zeros(1, 16), [4, 16], np.float32)
