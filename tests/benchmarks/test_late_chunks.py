"""python -m benchmarks late-chunking: the chunk of an answer, its score, a run on a toy."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.late_chunks import (
    LENGTHS,
    Question,
    add_arguments,
    document_note,
    gold_chunks,
    ndcg,
    read_answer_set,
    run,
    table,
)
from embedpack import Embeddings, InputError
from embedpack.inputs.documents import Document
from embedpack_export.pipeline import export
from tests.helpers.exports import quick
from tests.helpers.tiny_checkpoint import make_checkpoint

DOCUMENTS = ("the cat sleeps . on a warm roof in the rain .", "list files in a folder . find the window . " * 40)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set of two documents with a question each."""
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    for name, texts in (("corpus", DOCUMENTS), ("queries", ("warm roof", "window"))):
        lines = [json.dumps({"id": f"{name[0]}{row}", "text": text}) for row, text in enumerate(texts)]
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    places = [(DOCUMENTS[0].index("warm"), "c0"), (DOCUMENTS[1].index("window"), "c1")]
    rows = [f"q{row}\t{document}\t{begin}\t{begin + 6}" for row, (begin, document) in enumerate(places)]
    (folder / "spans.tsv").write_text("query-id\tcorpus-id\tstart\tend\n" + "\n".join(rows) + "\n")
    return folder.parent


def test_a_run_on_a_toy(data: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    export(quick(checkpoint, tmp_path / "pack", weights=("fp32",)))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args([str(tmp_path / "pack"), "--data", str(data), "--set", "toy"])
    options.threads, options.seed = 1, 3
    results = json.loads(json.dumps(run(options)))
    assert [row["chunk_tokens"] or 0 for row in results["rows"]] == list(LENGTHS)
    for row in results["rows"]:
        assert (row["documents"], row["questions"]) == (2, 2)
        assert row["interval_95"][0] <= row["difference"] <= row["interval_95"][1]
    assert results["rows"][0]["chunks"] == 82
    assert "128 tokens" in table(results)
    assert "2 questions about 2 documents of toy" in document_note([results])


def test_the_gold_chunk_shares_most_characters_with_the_answer() -> None:
    documents = [
        Document(0, "a" * 10, np.array([[0, 10]])),
        Document(1, "a" * 30, np.array([[0, 10], [10, 20], [20, 30]])),
    ]
    asked = [Question("", "b", begin, end) for begin, end in ((8, 13), (7, 12), (5, 25), (29, 30))]
    assert gold_chunks(documents, ["a", "b"], asked) == [2, 1, 2, 3]


def test_scores_of_one_relevant_chunk() -> None:
    """Ranks 1, 2 behind an equal score, and beyond the tenth."""
    chunks = Embeddings(np.eye(16, dtype=np.float32)[[0, 0, *range(1, 13)]], "float32", 16, "s")
    vectors = np.zeros((3, 16), np.float32)
    vectors[:2, 0], vectors[2] = 1, np.linspace(1, 0.1, 16) / np.linalg.norm(np.linspace(1, 0.1, 16))
    found = ndcg(Embeddings(vectors, "float32", 16, "s"), chunks, [0, 1, 13])
    np.testing.assert_allclose(found, [100, 100 / np.log2(3), 0])


def test_a_set_without_places_of_answers_is_refused(data: Path) -> None:
    assert [question.text for question in read_answer_set(data / "toy", 1).questions] == ["warm roof"]
    (data / "toy" / "spans.tsv").unlink()
    with pytest.raises(InputError, match="it has the place of each answer"):
        read_answer_set(data / "toy", None)
