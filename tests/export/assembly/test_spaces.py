"""Tasks that share a space: one codebook, fitted to the vectors of all of them, so that their codes compare."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpack import Embedder, InputError, maxsim, search, similarity
from embedpack.cli.main import main
from embedpack.pack.codebooks import read_codebooks
from embedpack.pack.folder import read_pack
from embedpack.pack.strict import AdapterMode
from embedpack.vectors.codes import PRECISIONS, Precision
from embedpack_export.families import families
from embedpack_export.families.model import Family, Model, TaskFacts
from embedpack_export.pipeline import export
from embedpack_export.sources.checkpoint import Checkpoint
from tests.helpers.exports import calibration_file, centered_codebook, query_update, quick, tree, write_adapter
from tests.helpers.tiny_checkpoint import WORDS, make_checkpoint
from tests.helpers.token_projector import TASKS, save_tasks

PROMPTS = {"query": "query: ", "passage": "passage: "}
# Interleaved: the tasks of a space need not follow each other.
SPACES = {"retrieval.query": "retrieval", "code": None, "retrieval.passage": "retrieval"}
CALIBRATION = tuple(f"{one} {other} cat" for one in ("the", "a", "blue", "red") for other in WORDS[:6])
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
MODES: tuple[AdapterMode, ...] = ("merged", "switchable")
Open = Callable[[str, AdapterMode], Embedder]


def with_spaces(family: Family, spaces: Mapping[str, str | None]) -> Family:
    """A family whose tasks share spaces, as those of jina-embeddings-v3 do."""

    def read(checkpoint: Checkpoint) -> Model:
        facts = {task: TaskFacts(PROMPTS, None, space) for task, space in spaces.items()}
        return replace(family.read(checkpoint), tasks=facts, default_task="code")

    return replace(family, read=read)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with adapters of three tasks, two of them in one space, and its packs; tests only read it."""
    folder = tmp_path_factory.mktemp("spaces")
    checkpoint = make_checkpoint(folder / "toy")
    adapters = {task: write_adapter(folder / task, query_update(seed=seed)) for seed, task in enumerate(SPACES)}
    for name in ("pack", "again"):
        settings = quick(checkpoint, folder / name, adapters=adapters, adapter_modes=MODES, weights=("int8",))
        calibration_file(folder, CALIBRATION)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(families(), "bert", with_spaces(families()["bert"], SPACES))
            patch.setattr("embedpack_export.stages.output_codes.fit_codebook", centered_codebook)
            export(settings)
    return folder


@pytest.fixture(scope="module")
def opened(home: Path) -> Open:
    """The pack with a task, opened once."""
    return functools.cache(lambda task, mode: Embedder(home / "pack", task=task, adapters=mode, threads=1))


def test_spaces_are_in_the_manifest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_pack(home / "pack").manifest
    assert list(manifest.tasks) == list(SPACES)
    assert {name: task.space for name, task in manifest.tasks.items()} == {
        "retrieval.query": "retrieval",
        "code": "code",
        "retrieval.passage": "retrieval",
    }
    assert {name: (space.codebooks, space.inputs) for name, space in manifest.spaces.items()} == {
        "retrieval": ("calibration/retrieval.safetensors", 2 * len(CALIBRATION)),
        "code": ("calibration/code.safetensors", len(CALIBRATION)),
    }
    assert main(["inspect", str(home / "pack")]) == 0
    shown = capsys.readouterr().out
    assert "task        retrieval.query: adapter of 1 matrices, space retrieval\n" in shown
    assert f"space       retrieval: codes calibrated on {2 * len(CALIBRATION)} inputs\n" in shown


def test_the_same_export_gives_the_same_bytes(home: Path) -> None:
    assert tree(home / "again") == tree(home / "pack")


def test_a_codebook_is_fitted_to_all_tasks_of_its_space(home: Path, opened: Open) -> None:
    """Its center is the mean of both tasks' vectors."""
    space = read_pack(home / "pack").manifest.spaces["retrieval"]
    codebook = read_codebooks(home / "pack" / space.codebooks, 32, None).single
    assert codebook is not None
    means = [
        opened(task, "merged").encode(CALIBRATION, task=task, prompt_name="").codes.mean(axis=0)
        for task in ("retrieval.query", "retrieval.passage")
    ]
    np.testing.assert_allclose(codebook.center, np.mean(means, axis=0), atol=5e-3)
    assert np.abs(means[0] - means[1]).max() > 2e-2


@given(
    st.lists(TEXTS, min_size=1, max_size=3),
    st.lists(TEXTS, min_size=1, max_size=3),
    st.sampled_from(MODES),
    st.sampled_from(PRECISIONS),
)
@settings(max_examples=40, deadline=None)
def test_codes_of_one_space_compare(
    opened: Open, queries: list[str], documents: list[str], mode: AdapterMode, precision: Precision
) -> None:
    """Float queries and coded ones of one task, with documents of the other."""
    query = opened("retrieval.query", mode).encode(queries, task="retrieval.query")
    coded = opened("retrieval.query", mode).encode(queries, task="retrieval.query", precision=precision)
    document = opened("retrieval.passage", mode).encode(documents, task="retrieval.passage", precision=precision)
    assert query.space == coded.space == document.space
    assert (coded.codebook and coded.codebook.id) == (document.codebook and document.codebook.id)
    expected = query.decode() @ document.decode().T
    np.testing.assert_allclose(similarity(query, document), expected, atol=2e-3)
    assert similarity(coded, document).shape == expected.shape
    np.testing.assert_allclose(search(query, document, k=1).scores[:, 0], expected.max(axis=1), atol=2e-3)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_codes_of_two_spaces_do_not(opened: Open, precision: Precision) -> None:
    query = opened("code", "merged").encode(["the cat"])
    document = opened("retrieval.passage", "merged").encode(["the cat"], precision=precision)
    with pytest.raises(InputError, match="toy/code/"):
        similarity(query, document)


def test_both_modes_have_the_codes_of_a_space(home: Path, opened: Open) -> None:
    one, other = (opened("retrieval.query", mode).encode("a cat", task="retrieval.query") for mode in MODES)
    assert one.space == other.space
    assert similarity(one, other)[0, 0] > 0.99


def test_tasks_of_one_space_are_coded_in_one_call(opened: Open) -> None:
    model = opened("retrieval.query", "switchable")
    both = model.encode(["a cat", "the cat"], task=["retrieval.query", "retrieval.passage"], precision="binary")
    alone = model.encode("the cat", task="retrieval.passage", precision="binary")
    np.testing.assert_array_equal(both.codes[1:], alone.codes)
    assert both.space == alone.space
    with pytest.raises(InputError, match="have codebooks of their own"):
        model.encode(["a cat", "x"], task=["retrieval.query", "code"], precision="binary")


def test_multi_vectors_of_one_space_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    spaces = dict.fromkeys(TASKS, "shared")
    monkeypatch.setitem(families(), "bert", with_spaces(families()["bert"], spaces))
    monkeypatch.setattr("embedpack_export.stages.output_codes.fit_codebook", centered_codebook)
    adapters = dict.fromkeys(TASKS, save_tasks(checkpoint, tmp_path / "adapters"))
    manifest = export(quick(checkpoint, tmp_path / "pack", adapters=adapters, weights=("fp32",)))
    assert manifest.codes("retrieval") == manifest.codes("code") == manifest.spaces["shared"]
    one, other = (Embedder(tmp_path / "pack", task=task, threads=1) for task in TASKS)
    for precision in PRECISIONS:
        query, document = one.encode_multi("a cat"), other.encode_multi("the cat sleeps", precision=precision)
        expected = (query.decode()[0] @ document.decode()[0].T).max(axis=1).sum()
        assert query.space == document.space
        assert maxsim(query, document)[0, 0] == pytest.approx(expected, abs=1e-2)
