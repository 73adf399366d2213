"""Output codes of a task, as graphs, files and the manifest get them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedpack.pack.codebooks import read_codebooks
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from embedpack.vectors.codebook import Codebook
from embedpack_export.quantization.codebook_fit import CodebookFit
from embedpack_export.stages.output_codes import SpaceCodes


def space_codes(**dimensions: int) -> SpaceCodes:
    """Codes with a center of 0.01 for each output, the int8 steps 0.004, 0.005, ..."""
    scales = {name: 0.004 + 0.001 * number for number, name in enumerate(dimensions)}
    centers = {name: np.full(size, 0.01, np.float32) for name, size in dimensions.items()}
    fits = {name: CodebookFit(Codebook.gaussian(center, 0.1), ("center",), {}) for name, center in centers.items()}
    return SpaceCodes(scales, fits, inputs=20)


def test_a_graph_of_several_tasks_takes_their_centers() -> None:
    codes = space_codes(sentence_embedding=32, token_embeddings=16)
    assert codes.scales_alone.fits == {}
    assert codes.scales_alone.int8_scales == {SENTENCE_EMBEDDING: 0.004, TOKEN_EMBEDDINGS: 0.005}
    assert {name: len(center) for name, center in codes.center_inputs.items()} == {
        "sentence_embedding_center": 32,
        "token_embeddings_center": 16,
    }


def test_dimensions_that_fill_no_bytes_have_no_center_as_an_input() -> None:
    """Such a graph has no binary output."""
    assert list(space_codes(sentence_embedding=36, token_embeddings=16).center_inputs) == ["token_embeddings_center"]


def test_both_codebooks_are_in_the_file_of_a_space(tmp_path: Path) -> None:
    codes = space_codes(sentence_embedding=32, token_embeddings=16)
    written = codes.write(tmp_path, "any")
    assert written.codebooks == "calibration/any.safetensors"
    codebooks = read_codebooks(tmp_path / written.codebooks, 32, 16)
    assert codebooks.single is not None
    assert codebooks.multi is not None
    assert codebooks.single.id == codes.fits[SENTENCE_EMBEDDING].codebook.id
    assert codebooks.multi.id == codes.fits[TOKEN_EMBEDDINGS].codebook.id


def test_a_space_without_multi_vectors(tmp_path: Path) -> None:
    codes = space_codes(sentence_embedding=32)
    assert list(codes.center_inputs) == ["sentence_embedding_center"]
    written = codes.write(tmp_path, "any")
    assert written.multi is None
    codebooks = read_codebooks(tmp_path / written.codebooks, 32, None)
    assert codebooks.single is not None
    assert (codebooks.single.id, codebooks.multi) == (codes.fits[SENTENCE_EMBEDDING].codebook.id, None)
