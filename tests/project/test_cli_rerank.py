"""embedpack rerank, and search in two stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedpack import Reranker
from embedpack.cli.main import main
from tests.helpers.tiny_pack import TINY_PACK, TINY_RERANKER

QUERY = "how do i reset a router ?"
TEXTS = ["the cat sleeps", "reset the router", "index shelf read every label", "a window"]


@pytest.fixture
def notes(tmp_path: Path) -> str:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps({"id": f"n{row}", "text": text}) + "\n" for row, text in enumerate(TEXTS)))
    return str(path)


def best(top_n: int | None = None) -> list[str]:
    found = Reranker(TINY_RERANKER, threads=1).rank(QUERY, TEXTS, top_n)
    return [f"n{item.index}" for item in found]


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_texts_of_a_file_are_ranked(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", str(TINY_RERANKER), QUERY, notes, "--top-n", "3", "--json"]) == 0
    found = printed(capsys)
    assert found["query"] == QUERY
    assert [hit["id"] for hit in found["hits"]] == best(3)
    assert [hit["score"] for hit in found["hits"]] == sorted((hit["score"] for hit in found["hits"]), reverse=True)
    assert main(["rerank", str(TINY_RERANKER), QUERY, notes]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["", QUERY]
    assert [line.split()[1] for line in lines[2:]] == best()


def test_search_in_two_stages(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["search", str(TINY_PACK), notes, QUERY, "--rerank", str(TINY_RERANKER), "--top-k", "2", "--json"]
    assert main(command) == 0
    assert [hit["id"] for hit in printed(capsys)["hits"]] == best(2)
    # As many candidates as results: the first stage chooses, the reranker orders.
    assert main([*command, "--candidates", "1"]) == 0
    two_stages = [hit["id"] for hit in printed(capsys)["hits"]]
    assert main([each for each in command if each not in ("--rerank", str(TINY_RERANKER))]) == 0
    nearest = {hit["id"] for hit in printed(capsys)["hits"]}
    assert set(two_stages) == nearest
    assert two_stages == [name for name in best() if name in nearest]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["rerank", str(TINY_RERANKER), " ", "NOTES"], 1, "the query is empty; pass a text"),
        (["rerank", str(TINY_PACK), "a", "NOTES"], 1, "this pack has neither scores nor multi-vectors"),
        (["search", str(TINY_PACK), "NOTES", "a", "--candidates", "5"], 2, "--candidates goes with --rerank PACK"),
        (["search", str(TINY_RERANKER), "NOTES", "a"], 1, "this pack gives scores, not vectors; open it with Reranker"),
    ],
)
def test_refusals(
    notes: str, arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([notes if each == "NOTES" else each for each in arguments]) == status
    assert message in capsys.readouterr().err


def test_long_and_empty_texts_have_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.jsonl"
    texts = ["a cat", "", "the cat sleeps " * 30]
    path.write_text("".join(json.dumps({"id": f"n{row}", "text": text}) + "\n" for row, text in enumerate(texts)))
    command = ["rerank", str(TINY_RERANKER), QUERY, str(path), "--on-empty", "skip"]
    assert main([*command, "--on-long", "error"]) == 1
    assert f"{path}, line 3 (id n2): the text and the query have more than the 32 tokens" in capsys.readouterr().err
    assert main(command) == 0
    assert "Truncated 1 of 2 texts to 32 tokens: n2" in capsys.readouterr().err
    path.write_text(json.dumps({"text": " "}) + "\n")
    assert main(command) == 1
    assert "nothing to score" in capsys.readouterr().err
