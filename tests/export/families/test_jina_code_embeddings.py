"""jina-code-embeddings: files of sentence-transformers carry all of it, and the family qwen2 reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedpack import Embedder
from embedpack.cli.main import main
from embedpack.pack.folder import read_pack
from embedpack.server.tasks import choose_task, task_names
from embedpack_export.pipeline import export
from tests.helpers.exports import distance, edit_json, quick
from tests.helpers.plans import plan
from tests.helpers.tiny_jina_code import HIDDEN, PROMPTS, TRUNCATIONS, make_jina_code

EAGER = {"attn_implementation": "eager", "dtype": "float32"}
TEXTS = ("how do i read a csv?", "a", "def f(x):\n    return x + 1\n", "for word in words: print(word)\n" * 9)


@dataclass(frozen=True)
class Case:
    checkpoint: Path
    pack: Path
    end: bool  # the tokenizer puts a token after a text


@pytest.fixture(scope="module", params=[False, True], ids=["no end token", "end token"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("code")
    checkpoint = make_jina_code(folder / "toy", end=request.param)
    export(quick(checkpoint, folder / "pack", reference="torch"))
    return Case(checkpoint, folder / "pack", request.param)


def test_every_prompt_and_truncation_equals_sentence_transformers(case: Case) -> None:
    """In a batch of texts of several lengths, which it pads on the left."""
    model = SentenceTransformer(str(case.checkpoint), device="cpu", model_kwargs=EAGER)
    assert model.tokenizer.padding_side == "left"
    pack = Embedder(case.pack, weights="fp32", threads=1)
    for name in PROMPTS:
        for size in (*TRUNCATIONS, None):
            expected = model.encode(list(TEXTS), prompt_name=name, truncate_dim=size, normalize_embeddings=True)
            found = pack.encode(list(TEXTS), prompt_name=name, truncate_dim=size).decode()
            assert distance(found, np.asarray(expected)) <= 1e-6, (name, size)


def test_prompts_have_vectors_of_their_own(case: Case) -> None:
    pack = Embedder(case.pack, weights="fp32", threads=1)
    by_prefix = {prefix: pack.encode(list(TEXTS), prompt_name=name).decode() for name, prefix in PROMPTS.items()}
    vectors = [*by_prefix.values(), pack.encode(list(TEXTS)).decode()]
    assert min(distance(one, other) for row, one in enumerate(vectors) for other in vectors[:row]) > 1e-4


def test_a_vector_does_not_depend_on_its_batch(case: Case) -> None:
    for weights in ("fp32", "int8"):
        pack = Embedder(case.pack, weights=weights, threads=1)
        alone = np.concatenate([pack.encode([text], prompt_name="qa_query").decode() for text in TEXTS])
        assert distance(pack.encode([*TEXTS, *TEXTS], prompt_name="qa_query").decode(), [*alone, *alone]) <= 1e-6


def test_one_task_with_all_prompts(case: Case) -> None:
    manifest = read_pack(case.pack).manifest
    assert (manifest.family, list(manifest.tasks), list(manifest.variants)) == (
        "qwen2",
        ["default"],
        ["default-fp32", "default-int8"],
    )
    assert {name: prompt.prefix for name, prompt in manifest.tasks["default"].prompts.items()} == PROMPTS
    assert manifest.tasks["default"].default_prompt_name is None
    assert manifest.single is not None
    assert (manifest.single.pooling, manifest.single.truncate_dims) == ("last", (*TRUNCATIONS, HIDDEN))


def test_inspect_states_the_pooled_token_and_the_prompts(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(case.pack)]) == 0
    printed = capsys.readouterr().out
    pooled = (
        "last pooling of '<|endoftext|>', which the tokenizer adds\n"
        if case.end
        else "last pooling of the last token of prompt and text; the tokenizer adds none there\n"
    )
    assert pooled in printed
    assert f"  prompt    {'qa_document':<20} 'Candidate answer:\\n'\n" in printed
    assert "  prompts   default none, queries none, documents and files none\n" in printed


def test_truncations_of_the_caller_where_no_file_has_any(tmp_path: Path) -> None:
    checkpoint = make_jina_code(tmp_path / "toy")
    edit_json(checkpoint / "config.json", matryoshka_dims=None)
    assert plan(checkpoint).truncate_dims == (HIDDEN,)
    assert plan(checkpoint, truncate_dims=(48,)).truncate_dims == (48, HIDDEN)


@pytest.mark.parametrize("use", ["nl2code", "qa", "code2code", "code2nl", "code2completion"])
def test_the_server_has_the_names_of_the_hosted_api(case: Case, use: str) -> None:
    names = task_names(read_pack(case.pack).manifest.tasks)
    for suffix, side in (("query", "query"), ("passage", "document")):
        found = choose_task(names, f"{use}.{suffix}", None)
        assert (found.task, found.prompt.prefix) == ("default", PROMPTS[f"{use}_{side}"])
