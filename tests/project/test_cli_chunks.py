"""embedpack embed --late-chunking: documents of files, ids with places, options that contradict it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedpack import Embedder, Embeddings
from embedpack.cli.main import main
from embedpack_export.pipeline import export
from tests.helpers.exports import quick
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_pack import TINY_PACK

TEXTS = (
    "The cat sleeps.  The roof is warm! ",
    "list files in a folder",
    "Rain. " + "read every label twice. " * 9,
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("chunks") / "toy")
    export(quick(checkpoint, checkpoint.parent / "pack", weights=("fp32",)))
    return checkpoint.parent / "pack"


def corpus(folder: Path, *texts: str) -> str:
    path = folder / "docs.jsonl"
    path.write_text("".join(json.dumps({"id": f"d#{row}", "text": text}) + "\n" for row, text in enumerate(texts)))
    return str(path)


def run(pack: Path, folder: Path, *options: str, texts: tuple[str, ...] = TEXTS) -> Embeddings:
    out = folder / "out.npz"
    assert main(["embed", str(pack), corpus(folder, *texts), "--late-chunking", "-o", str(out), *options]) == 0
    return Embeddings.load(out)


def chunk(name: str) -> tuple[str, str]:
    """Id of the document, and text of the chunk."""
    document, _, place = name.rpartition("#")
    begin, end = map(int, place.split("-"))
    return document, TEXTS[int(document.removeprefix("d#"))][begin:end]


def test_sentences_of_documents(pack: Path, tmp_path: Path) -> None:
    found = run(pack, tmp_path)
    assert found.ids is not None
    assert [chunk(name) for name in found.ids] == [
        ("d#0", "The cat sleeps."),
        ("d#0", "The roof is warm!"),
        ("d#1", "list files in a folder"),
        ("d#2", "Rain."),
        *[("d#2", "read every label twice.")] * 9,
    ]
    model = Embedder(pack)
    expected = model.encode_chunks(["The cat sleeps.", "The roof is warm!"], prompt_name="passage")
    np.testing.assert_allclose(found.codes[:2], expected.codes, atol=1e-6)
    np.testing.assert_allclose(found.codes[2:3], model.encode(TEXTS[1], prompt_name="passage").codes, atol=1e-6)


@pytest.mark.parametrize("overlap", [0, 2])
def test_chunks_of_tokens(overlap: int, pack: Path, tmp_path: Path) -> None:
    found = run(pack, tmp_path, "--chunk-tokens", "5", "--chunk-overlap", str(overlap), "--precision", "int8")
    assert found.ids is not None
    chunks = [text for document, text in map(chunk, found.ids) if document == "d#1"]
    assert chunks == ["list files in a folder"]
    first = [text for document, text in map(chunk, found.ids) if document == "d#0"]
    assert first == (
        ["The cat sleeps.  The", ".  The roof is warm", "is warm!"]
        if overlap
        else ["The cat sleeps.  The", "roof is warm!"]
    )


def test_json_lines_have_the_same_ids(pack: Path, tmp_path: Path) -> None:
    expected = run(pack, tmp_path)
    out = tmp_path / "out.jsonl"
    assert main(["embed", str(pack), corpus(tmp_path, *TEXTS), "--late-chunking", "-o", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert tuple(line["id"] for line in lines) == expected.ids
    np.testing.assert_allclose([line["embedding"] for line in lines], expected.codes, atol=1e-6)


def test_a_document_that_cannot_be_used_is_skipped_with_its_place(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = (TEXTS[0], "\x02\x03", " ", TEXTS[1])
    found = run(pack, tmp_path, "--on-error", "skip", "--on-empty", "skip", texts=texts)
    assert found.ids is not None
    assert [name.rpartition("#")[0] for name in found.ids] == ["d#0", "d#0", "d#3"]
    log = capsys.readouterr().err
    assert "line 2 (id d#1): the document has no token; leave it out" in log
    assert "1 empty texts: were skipped" in log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk-tokens", "4"], "--chunk-tokens and --chunk-overlap need --late-chunking"),
        (["--late-chunking", "--chunk-overlap", "4"], "--chunk-overlap needs --chunk-tokens"),
        (["--late-chunking", "--multi"], "--multi does nothing beside --late-chunking; leave it out"),
        (
            ["--late-chunking", "--on-long", "error"],
            "--on-long error does nothing beside --late-chunking; leave it out",
        ),
        (
            ["--late-chunking", "--on-empty", "zero"],
            "--on-empty zero does nothing beside --late-chunking; leave it out",
        ),
        (
            ["--late-chunking", "--chunk-tokens", "4", "--chunk-overlap", "4"],
            "chunks of 4 tokens cannot share 4; the overlap is lower than the length",
        ),
    ],
)
def test_options_that_contradict_it(
    options: list[str], message: str, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", str(pack), corpus(tmp_path, *TEXTS), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_pack_without_it_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(TINY_PACK), corpus(tmp_path, *TEXTS), "--late-chunking"]) == 1
    error = capsys.readouterr().err
    assert f"{TINY_PACK}: no late chunking: layers follow the pooling of this model, or an older embedpack" in error


def test_images_are_refused(v4: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(files / "first.png")
    assert main(["embed", str(v4), picture, "--task", "retrieval", "--late-chunking"]) == 1
    assert f"{picture}: --late-chunking takes texts, no images" in capsys.readouterr().err
