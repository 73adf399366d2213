"""Ids of vectors: they follow their rows, and survive every file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import Embeddings, InputError, MultiEmbeddings
from embedpack.vectors.embeddings import concatenate
from embedpack.vectors.ids import ids_from_bytes, ids_to_bytes
from embedpack.vectors.multi_embeddings import concatenate_multi, offsets_of
from embedpack.vectors.writing import write_vectors

Either = Embeddings | MultiEmbeddings
IDS = ("first", "ends with NUL\0", "é 模型")


def single(ids: tuple[str, ...] | None = IDS) -> Embeddings:
    codes = np.eye(3, 8, dtype=np.float32)
    return Embeddings(codes, "float32", 8, "tiny/task/0", ids=ids)


def multi(ids: tuple[str, ...] | None = IDS) -> MultiEmbeddings:
    codes = np.eye(6, 8, dtype=np.float32)
    return MultiEmbeddings(codes, offsets_of([1, 2, 3]), "float32", 8, "tiny/task/0", ids=ids)


@pytest.fixture(params=[single, multi])
def make(request: pytest.FixtureRequest) -> Callable[..., Either]:
    made: Callable[..., Either] = request.param
    return made


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_bytes_round_trip(ids: list[str]) -> None:
    assert ids_from_bytes(ids_to_bytes(ids)) == tuple(ids)


def test_ids_follow_their_rows(make: Callable[..., Either]) -> None:
    vectors = make()
    assert vectors[1].ids == IDS[1:2]
    assert vectors[-1].ids == IDS[2:]
    assert vectors[::-1].ids == IDS[::-1]
    assert vectors[np.array([2, 0, 2])].ids == (IDS[2], IDS[0], IDS[2])
    assert vectors[np.array([True, False, True])].ids == (IDS[0], IDS[2])
    assert [part.ids for part in vectors] == [(name,) for name in IDS]
    assert make(None)[1:].ids is None


def test_ids_are_concatenated_or_refused() -> None:
    assert concatenate([single(), single()[:1]]).ids == (*IDS, IDS[0])
    assert concatenate_multi([multi()[2], multi()]).ids == (IDS[2], *IDS)
    assert concatenate([single(None), single(None)]).ids is None
    with pytest.raises(InputError, match="embeddings with and without ids cannot be concatenated"):
        concatenate([single(), single(None)])


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_ids_survive_a_file(make: Callable[..., Either], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"vectors{ending}"
    for vectors in (make(), make(None)):
        vectors.save(path)
        loaded = type(vectors).load(path)
        assert loaded.ids == vectors.ids
        np.testing.assert_array_equal(loaded.codes, vectors.codes)
        assert (loaded.space, loaded.dimensions, loaded.precision) == ("tiny/task/0", 8, "float32")


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".jsonl"])
def test_ids_are_written_with_the_vectors(make: Callable[..., Either], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{ending}"
    write_vectors(path, IDS, make(None))
    if ending == ".jsonl":
        assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == list(IDS)
    else:
        assert make().load(path).ids == IDS


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_long_id_costs_its_own_length(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{ending}"
    write_vectors(
        path, ["k" * 500_000, *map(str, range(2999))], Embeddings(np.eye(3000, 8, dtype=np.float32), "float32", 8, "s")
    )
    assert path.stat().st_size < 700_000


def test_numpy_alone_reads_the_ids_of_an_npz_file(tmp_path: Path) -> None:
    single().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as saved:
        assert tuple(json.loads(saved["ids"].tobytes())) == IDS


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("a",), "1 ids for 3 inputs; each input has one"),
        (["a", "b", "c"], "ids are a tuple of texts"),
        ((1, 2, 3), "ids are a tuple of texts"),
    ],
)
def test_ids_that_do_not_fit(make: Callable[..., Either], ids: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(ids)


def test_damaged_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {"codes": single().codes, "format": np.array("embedpack-embeddings-2"), "space": np.array("s")}
    arrays |= {"precision": np.array("float32"), "dimensions": np.array(8)}
    for ids, message in (
        (np.frombuffer(b'["a"]', np.uint8), "1 ids for 3 inputs"),
        (np.frombuffer(b'["a", 1, "c"]', np.uint8), "the ids are not a JSON array of texts"),
        (np.frombuffer(b"\xff", np.uint8), "the ids are not a JSON array of texts"),
        (np.zeros(3, np.float32), "the ids are an array of type float32"),
    ):
        np.savez(path, **arrays, ids=ids)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            Embeddings.load(path)


def test_a_half_surrogate_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an id has a half surrogate pair"):
        replace(single(), ids=("a", "b", "\ud800")).save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_other_files(tmp_path: Path) -> None:
    single().save(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz: an npz file cannot be memory-mapped; save it as \.safetensors"):
        Embeddings.load(tmp_path / "a.npz", mapped=True)
    with pytest.raises(InputError, match=r"found format 'embedpack-embeddings-2'"):
        MultiEmbeddings.load(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.jsonl: JSON lines have no metadata to load vectors from; write "):
        Embeddings.load(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"q\.npy: unknown ending '\.npy'; known: \.safetensors, \.npz"):
        single().save(tmp_path / "q.npy")


def test_repr_is_one_line() -> None:
    assert repr(single()) == "Embeddings(3 x 8 float32, space='tiny/task/0', with ids)"
    assert repr(multi(None)) == "MultiEmbeddings(3 x 8 float32, space='tiny/task/0')"


def test_json_lines_have_the_shortest_form_of_float32(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    values = np.array([[0.1, -1 / 3, 1e-9, 0, 1]], np.float32)
    write_vectors(None, ["a"], Embeddings(values, "float32", 5, "s"))
    sys.stdout.flush()
    line = capfdbinary.readouterr().out
    assert line == b'{"id":"a","embedding":[0.1,-0.33333334,1e-09,0.0,1.0]}\n'
    np.testing.assert_array_equal(np.array(json.loads(line)["embedding"], np.float32), values[0])
