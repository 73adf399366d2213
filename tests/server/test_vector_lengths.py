"""Packs whose vectors have lengths of their own: `normalized` of a request, and the formats of the vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from embedpack.server.request_errors import RequestError
from embedpack.server.requests import EmbeddingsCall, check_call, decode_body
from embedpack.server.served_formats import vector_format
from embedpack.server.served_packs import ServedPack, ServedPacks
from embedpack.server.settings import Limits, PackSettings, ServeSettings
from embedpack.server.vectors import VectorFormat
from embedpack.vectors.arrays import Float32
from embedpack.vectors.codes import unit
from embedpack.vectors.metric import Similarity
from tests.helpers.tiny_pack import TINY_PACK


@pytest.fixture(scope="module")
def tiny() -> ServedPack:
    settings = ServeSettings(packs=(PackSettings(name="tiny", folder=TINY_PACK, weights="fp32"),), threads=1)
    return ServedPacks.open(settings).packs["tiny"]


def with_lengths(pack: ServedPack, similarity: Similarity) -> ServedPack:
    manifest = pack.manifest
    assert manifest.single is not None
    single = msgspec.structs.replace(manifest.single, normalized=False, similarity=similarity)
    return replace(pack, pack=replace(pack.pack, manifest=msgspec.structs.replace(manifest, single=single)))


def call(**fields: Any) -> EmbeddingsCall:
    body = msgspec.json.encode({"model": "tiny", "input": ["a"], **fields})
    return check_call(decode_body(body, "jina"), Limits(), data_uris=False)


def form_of(pack: ServedPack, **fields: Any) -> VectorFormat:
    """Format of the vectors of a call with some fields."""
    form = vector_format(pack, call(**fields), "default")
    assert isinstance(form, VectorFormat)
    return form


@pytest.fixture
def vectors(tiny: ServedPack) -> Float32:
    assert tiny.manifest.single is not None
    shape = 5, tiny.manifest.single.dimensions
    return np.random.default_rng(0).normal(size=shape, scale=0.4).astype(np.float32)


@pytest.mark.parametrize(
    ("similarity", "normalized", "is_unit"),
    [
        ("cosine", None, True),
        ("cosine", True, True),
        ("cosine", False, False),
        ("dot", None, False),
        ("dot", True, True),
        ("dot", False, False),
    ],
)
def test_lengths_are_those_that_are_asked_for(
    tiny: ServedPack, vectors: Float32, similarity: Similarity, normalized: bool | None, is_unit: bool
) -> None:
    pack = with_lengths(tiny, similarity)
    for dimensions in (None, 8):
        made = form_of(pack, normalized=normalized, dimensions=dimensions)
        cut = vectors[:, :dimensions]
        np.testing.assert_array_equal(made.codes(vectors), unit(cut) if is_unit else cut)


def test_codes_are_of_directions_or_keep_the_lengths(tiny: ServedPack, vectors: Float32) -> None:
    codes = form_of(tiny, embedding_type="int8").codes(unit(vectors))
    by_cosine = form_of(with_lengths(tiny, "cosine"), embedding_type="int8")
    np.testing.assert_array_equal(by_cosine.codes(vectors), codes)
    of_units = form_of(tiny, embedding_type="ubinary").codes(unit(vectors))
    bits = form_of(with_lengths(tiny, "cosine"), embedding_type="ubinary").codes(vectors)
    np.testing.assert_array_equal(bits, of_units)
    by_dot = form_of(with_lengths(tiny, "dot"), embedding_type="int8")
    np.testing.assert_array_equal(
        by_dot.codes(vectors), np.clip(np.rint(vectors * (np.float32(1) / np.float32(by_dot.int8_scale))), -127, 127)
    )


@pytest.mark.parametrize("encoding", ["binary", "ubinary"])
def test_bits_of_a_dot_model_are_refused(tiny: ServedPack, encoding: str) -> None:
    with pytest.raises(RequestError, match="binary codes keep the direction of a vector") as caught:
        form_of(with_lengths(tiny, "dot"), embedding_type=encoding)
    assert caught.value.field == "embedding_type"


def test_vectors_of_length_1_have_no_other_length(tiny: ServedPack) -> None:
    with pytest.raises(RequestError, match="the vectors of this model have length 1") as caught:
        form_of(tiny, normalized=False)
    assert caught.value.field == "normalized"
