"""ColBERT models in all layouts: multi-vectors and skipped tokens of sentence-transformers' MultiVectorEncoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import CheckpointError, Embedder, InputError, Reranker, maxsim
from embedpack.cli.main import main
from embedpack.pack.folder import read_pack
from embedpack.pack.score_recipes import MaxSimScores
from embedpack.vectors.arrays import Float32
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import make_plan
from embedpack_export.planning.settings import ExportSettings
from tests.helpers.accuracy_check import many_texts
from tests.helpers.documents import python_blocks
from tests.helpers.evaluation_sets import write_retrieval
from tests.helpers.exports import distance, edit_json, exactly
from tests.helpers.peft_oracle import save_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_colbert import (
    DIMENSIONS,
    DOCUMENT_LENGTH,
    HIDDEN,
    QUERY_LENGTH,
    add_tokens,
    make_hf_colbert,
    make_pylate,
    write_dense,
    write_pylate,
)

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")

TEXTS = [
    "how do i reset the router?",
    "a",
    "the cat, sleeps: on the warm roof, while the rain is blue! the network of the house is down again",
    "...",
]
SIDES = ("query", "document")


def make_native(folder: Path) -> Path:
    """A MultiVectorEncoder as sentence-transformers saves it: markers in prompts, expansion with a floor alone."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize

    plain = make_checkpoint(folder.with_name("plain"), vocab_size=300)
    add_tokens(plain, "[MASK]", "[Q]", "[D]", special=True)
    edit_json(plain / "tokenizer_config.json", mask_token="[MASK]")
    expansion = {"strategy": "min", "length": QUERY_LENGTH, "attend": True, "token": "[MASK]"}
    modules = [
        Transformer(str(plain), query_expansion=expansion, document_length=DOCUMENT_LENGTH),
        Dense(HIDDEN, DIMENSIONS, module_input_name="token_embeddings"),
        MultiVectorMask(skiplist_words=[",", "?", "never"]),
        Normalize("token_embeddings"),
    ]
    prompts = {"query": "[Q]", "document": "[D]"}
    MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu").save(str(folder), create_model_card=False)
    return folder


@dataclass(frozen=True)
class Case:
    """A pack and the model that it was made of."""

    folder: Path
    pack: Path
    model: Embedder
    vectors: dict[str, list[Float32]]  # of TEXTS, by side

    def encode(self, side: str, texts: Any = TEXTS, **options: Any) -> Any:
        return self.model.encode_multi(texts, prompt_name=side, **options)


def settings_of(folder: Path, **changes: Any) -> ExportSettings:
    given = {
        "checkpoint": folder,
        "output": folder.with_name(f"{folder.name}-pack"),
        "calibrate": many_texts(folder.parent, 18),
        "weights": ("fp32", "int8"),
        "max_loss": 40.0,
        **changes,
    }
    return ExportSettings(**given)


def by_library(folder: Path) -> dict[str, list[Float32]]:
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    return {
        "query": [np.asarray(model.encode_query(text)) for text in TEXTS],
        "document": [np.asarray(model.encode_document(text)) for text in TEXTS],
    }


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "hf_colbert": make_hf_colbert,
    "pylate": lambda folder: make_pylate(folder, "modernbert", attend_to_expansion_tokens=True),
    "native": make_native,
}


@pytest.fixture(scope="module", params=LAYOUTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = LAYOUTS[request.param](tmp_path_factory.mktemp(request.param) / "model")
    settings = settings_of(folder, weights=("fp32", "int8") if request.param == "pylate" else ("fp32",))
    export(settings)
    return Case(folder, settings.output, Embedder(settings.output, weights="fp32"), by_library(folder))


def assert_equal(found: list[Float32], expected: list[Float32]) -> None:
    assert [len(vectors) for vectors in found] == [len(vectors) for vectors in expected]
    for one, other in zip(found, expected, strict=True):
        assert distance(one, other) <= 1e-6


def test_vectors_are_those_of_the_library(case: Case) -> None:
    for side in SIDES:
        found = case.encode(side).decode()
        assert_equal(found, case.vectors[side])
        for text, vectors in zip(TEXTS, found, strict=True):
            assert_equal(case.encode(side, text).decode(), [vectors])


def test_the_code_of_the_guide_runs(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "answerai-colbert-small-v1").symlink_to(case.pack)
    monkeypatch.chdir(tmp_path)
    found: dict[str, np.ndarray] = {}
    exec(python_blocks("docs/guide.md")[-1].replace("print(", "scores = ("), found)
    assert found["scores"].shape == (1, 2)


def test_forged_markers_are_text(case: Case) -> None:
    prompts, processor = read_pack(case.pack).manifest.tasks["default"].prompts, case.model._encoder.processor
    added = {entry["id"] for entry in json.loads((case.pack / "tokenizer.json").read_text())["added_tokens"]}
    for side in SIDES:
        (plain,) = processor.process(processor.items(["the cat"]), prompts[side])
        for marker in ("[Q] ", "[D] ", "[Q]", "[D]", "[unused0]", "[unused1]", "[MASK]"):
            (item,) = processor.process(processor.items([f"the {marker}cat"]), prompts[side])
            assert not (set(item.ids.tolist()) - set(plain.ids.tolist())) & added


def test_all_precisions_pooling_and_search(case: Case) -> None:
    scores = np.array([[(q @ d.T).max(axis=1).sum() for d in case.vectors["document"]] for q in case.vectors["query"]])
    for precision in ("float32", "float16", "int8", "4bit", "2bit", "ternary", "binary"):
        documents = case.encode("document", precision=precision)
        found = maxsim(case.encode("query"), documents)
        if precision == "float32":
            np.testing.assert_allclose(found, scores, atol=1e-4)
            np.testing.assert_array_equal(found.argsort(axis=1), scores.argsort(axis=1))
        assert documents.counts.tolist() == [len(vectors) for vectors in case.vectors["document"]]
    assert len(case.encode("document", pool_factor=2).codes) < len(case.encode("document").codes)


def test_the_pack(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_pack(case.pack).manifest
    assert (manifest.kind, manifest.single) == ("embedder", None)
    assert manifest.score == MaxSimScores("default", "query", "document", per_query_token=False)
    assert manifest.tasks["default"].default_prompt_name == "document"
    for variant in manifest.variants.values():
        check = variant.checks["default"]
        assert (check.reference, check.single, check.outcome) == ("torch", None, "within budget")
        assert check.multi is not None
    exact = manifest.variants["default-fp32"].checks["default"]
    assert exact.ranking_loss is not None
    assert exact.ranking_loss <= 0.01
    assert main(["verify", str(case.pack)]) == 0
    with pytest.raises(InputError, match="this pack has no single vectors; call encode_multi"):
        case.model.encode("a cat")
    assert main(["inspect", str(case.pack)]) == 0
    ranker = Reranker(case.pack, weights="fp32")
    expected = [(case.vectors["query"][0] @ d.T).max(axis=1).sum() for d in case.vectors["document"]]
    np.testing.assert_allclose(ranker.score(TEXTS[0], TEXTS), expected, atol=1e-4)


def test_search_of_the_command_line(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    command = ["search", str(case.pack), str(tmp_path / "texts.txt"), TEXTS[0], TEXTS[1], "--weights", "fp32"]
    assert main([*command, "--top-k", "3", "--json", "-"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for hits, query in zip(found, case.vectors["query"], strict=False):
        scores = [float((query @ document.T).max(axis=1).sum()) for document in case.vectors["document"]]
        best = sorted(range(len(TEXTS)), key=lambda row: -scores[row])[:3]
        assert [hit["text"] for hit in hits["hits"]] == [TEXTS[row] for row in best]
        assert [hit["score"] for hit in hits["hits"]] == pytest.approx([scores[row] for row in best], abs=2e-4)


@pytest.mark.parametrize("case", ["pylate"], indirect=True)
def test_bench_against_the_checkpoint(case: Case, tmp_path: Path) -> None:
    write_retrieval(tmp_path / "data" / "words-en")
    path = tmp_path / "out.json"
    options = ["--data", str(tmp_path / "data"), "--no-cache", "--threads", "1", "--json", str(path)]
    command = ["bench", "accuracy", str(case.pack), "--reference", str(case.folder), "--variant", "default-fp32"]
    main([*command, *options])
    (task,) = json.loads(path.read_text())["accuracy"]["tasks"]
    settings = [row["setting"] for row in task["settings"]]
    assert {setting["vectors"] for setting in settings} == {"multi"}
    assert {setting["precision"] for setting in settings} >= {"float32", "binary"}
    assert task["settings"][0]["sets"][0]["cosine"]["min"] > 1 - 1e-6
    assert task["cosines"][0]["languages"]["en"]["min"] > 1 - 1e-6


# --- an adapter with a projector of its own


def test_an_adapter_of_pylate(tmp_path: Path) -> None:
    """On a checkpoint for single vectors: the adapter's folder has the head, the prompts and the limits."""
    from sentence_transformers import MultiVectorEncoder

    base = make_checkpoint(tmp_path / "base", vocab_size=300)
    add_tokens(base, "[unused0]", "[unused1]", special=False)
    folder = save_adapter(base, tmp_path / "adapter")
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    write_dense(folder / "1_Dense", HIDDEN, DIMENSIONS, 3)
    markers = {"query_prefix": "[unused0]", "document_prefix": "[unused1]"}
    write_pylate(folder, 1, **markers, do_query_expansion=False, skiplist_words=[])
    export(settings_of(base, adapters={"colbert": folder}, output=tmp_path / "pack"))
    manifest = read_pack(tmp_path / "pack").manifest
    assert (manifest.single, sorted(manifest.tasks["colbert"].prompts)) == (None, ["document", "query"])
    assert manifest.variants["colbert-fp32"].checks["colbert"].reference == "torch"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder / name)
    judge = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    model = Embedder(tmp_path / "pack", weights="fp32")
    for side, encode in (("query", judge.encode_query), ("document", judge.encode_document)):
        found = model.encode_multi(TEXTS, prompt_name=side).decode()
        assert_equal(found, [np.asarray(encode(text)) for text in TEXTS])


# --- options and errors


def test_a_limit_of_the_caller_is_that_of_documents(tmp_path: Path) -> None:
    plan = make_plan(settings_of(make_hf_colbert(tmp_path / "model"), max_tokens=30, truncate_dims=(8,)))
    prompts = plan.tasks["default"].prompts
    assert [prompts[side].max_tokens for side in SIDES] == [QUERY_LENGTH, None]  # type: ignore[union-attr]
    assert plan.max_tokens == 30
    assert plan.tokens is not None
    assert plan.tokens.allowed_dims == (8, DIMENSIONS)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    folder = make_hf_colbert(tmp_path / "model", doc_maxlen=None)
    path = folder / "artifact.metadata"

    def message() -> str:
        with pytest.raises(CheckpointError) as caught:
            make_plan(settings_of(folder))
        return str(caught.value)

    assert message() == (
        f"{path}: has no limit of documents, and the libraries of this model assume different ones; pass --max-length"
    )
    edit_json(path, doc_maxlen=12, dim=8)
    assert message() == f"{path}: dim is 8, linear.weight has 16 rows; are both of one model?"
    edit_json(path, dim=16, query_token_id="[Nobody]")
    assert message().startswith(f"{path}: '[Nobody]' is no token of {folder / 'tokenizer.json'}; save the model with")
    edit_json(path, query_token_id="[unused0]", interaction="flipr")
    assert message().startswith(f"{path}: interaction is 'flipr'; supported: colbert")
    edit_json(path, interaction="colbert", surprise=1)
    assert message().startswith(f"{path}: unknown key 'surprise'")
    edit_json(path, surprise=None)
    refusal = "--pooling: this model gives multi-vectors alone, nothing is pooled; leave it out"
    with pytest.raises(InputError, match=exactly(refusal)):
        make_plan(settings_of(folder, pooling="mean"))
