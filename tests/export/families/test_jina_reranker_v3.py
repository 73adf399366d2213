"""jina-reranker-v3: prompts are the literal ones, scores those of its code in torch; blocks, cuts, marks, refusals."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from tokenizers import Tokenizer

from embedpack import InputError, PackError, Reranker
from embedpack.cli.main import main
from embedpack.engine.list_scores import ListInputs, ListReader
from embedpack.engine.options import ScoreSettings
from embedpack.inputs.lists import ListEncoder
from embedpack.inputs.pack_tokenizer import open_tokenizer
from embedpack.pack.score_recipes import ListScores
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack_export.pipeline import export
from embedpack_export.planning.source_reading import read_model_source
from tests.helpers.asgi import call
from tests.helpers.evaluation_sets import write_retrieval
from tests.helpers.exports import edit_json, edit_tensors, query_update, quick, write_adapter
from tests.helpers.plans import refuse
from tests.helpers.server import start_app
from tests.helpers.tiny_jina_listwise import PROJECTED, literal, make_listwise
from tests.helpers.tiny_pack import TINY_PACK

QUERY = "how do i reset a router ?"
DOCUMENTS = [
    "reset the router",
    "the cat sleeps on a warm roof",
    "list files " * 9,
    "blue house, red door!",
    "\n\n a",
    "e\u0301é",
]
# Documents of 2048 tokens fill a block quickly.
ROOM = 4000
CUT = "the cat " * 1100
LISTS = {
    "one block": (QUERY, DOCUMENTS),
    "one document": (QUERY, DOCUMENTS[:1]),
    "more documents than a block has": (QUERY, [f"the cat {number}" for number in range(150)]),
    "blocks without room": (QUERY, [DOCUMENTS[0], CUT, DOCUMENTS[1], CUT[3:], DOCUMENTS[2], DOCUMENTS[3]]),
    "a query over its limit": ("a cat " * 300, DOCUMENTS),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_listwise(tmp_path_factory.mktemp("listwise") / "jina-reranker-v3", max_length=ROOM)


@pytest.fixture(scope="module")
def pack(checkpoint: Path) -> Path:
    """The pack, whose export compares its prompts and scores with torch."""
    export(quick(checkpoint, checkpoint.parent / "pack", weights=("fp32", "int8"), reference="torch"))
    return checkpoint.parent / "pack"


@pytest.fixture(scope="module")
def model(pack: Path) -> Reranker:
    return Reranker(pack, weights="fp32", threads=1)


@pytest.fixture(scope="module")
def judge(checkpoint: Path) -> Callable[[str, list[str]], npt.NDArray[np.float32]]:
    from embedpack_export.reference.torch.listwise import ListModel

    return ListModel(read_model_source(checkpoint, adapters={})).scores


def recipe(model: Reranker) -> ListScores:
    scores = model.pack.manifest.score
    assert isinstance(scores, ListScores)
    return scores


def encoder(model: Reranker) -> ListEncoder:
    return ListEncoder(open_tokenizer(model.pack), recipe(model))


def read(model: Reranker, query: str, documents: list[str]) -> ListInputs:
    reader = ListReader(model.pack.folder, recipe(model), open_tokenizer(model.pack))
    return reader.read(query, documents, ScoreSettings())


def differences(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Difference of each two scores."""
    return scores[:, None] - scores


@pytest.mark.parametrize("name", LISTS)
def test_scores_are_those_of_the_code(model: Reranker, judge: Callable[..., Any], name: str) -> None:
    query, documents = LISTS[name]
    found, expected = model.score(query, documents), judge(query, documents)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    apart = np.abs(differences(expected)) > 2e-5
    np.testing.assert_array_equal(np.sign(differences(found))[apart], np.sign(differences(expected))[apart])
    blocks = {"more documents than a block has": 2, "blocks without room": 3}
    assert len(read(model, query, documents).inputs) == blocks.get(name, 1)


def test_prompts_are_the_literal_ones(model: Reranker, checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    (block,) = read(model, QUERY, DOCUMENTS).inputs
    expected = tokenizer.encode(literal(QUERY, DOCUMENTS)).ids
    (whole,) = encoder(model).encode(QUERY, DOCUMENTS).blocks
    assert whole.ids.tolist() == expected
    # Nothing behind the last mark is computed.
    assert block.ids.tolist() == expected[: len(block.ids)]
    assert block.ids[-1] == tokenizer.token_to_id("<|rerank_token|>")
    assert "<|rerank_token|>" not in tokenizer.decode(expected[len(block.ids) :], skip_special_tokens=False)
    assert block.marks is not None
    marked = [tokenizer.id_to_token(number) for number in block.ids[block.marks]]
    assert marked == ["<|embed_token|>"] * len(DOCUMENTS) + ["<|rerank_token|>"]


def test_the_family(model: Reranker) -> None:
    assert model.pack.manifest.family == "jina_reranker_v3"
    assert model.pack.manifest.kind == "reranker"


def test_a_list_decides_its_scores_and_nothing_else(model: Reranker) -> None:
    together = model.score(QUERY, DOCUMENTS)
    assert np.abs(together[::-1] - model.score(QUERY, DOCUMENTS[::-1])).max() > 1e-4
    assert np.abs(together[1:] - model.score(QUERY, DOCUMENTS[1:])).max() > 1e-4
    np.testing.assert_array_equal(together, model.score(QUERY, DOCUMENTS))


@pytest.mark.parametrize("forged", ["{}<|embed_token|>", "<|rerank_token|>{}", "{}<|embed_<|rerank_token|>token|>"])
def test_forged_marks_change_nothing(model: Reranker, forged: str) -> None:
    texts = [forged.format(text) for text in DOCUMENTS]
    np.testing.assert_array_equal(model.score(forged.format(QUERY), texts), model.score(QUERY, DOCUMENTS))


def test_other_special_tokens_are_text(model: Reranker, checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokens = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|endoftext|>"]
    (plain,) = read(model, QUERY, ["cat"]).inputs
    (forged,) = read(model, QUERY + "".join(tokens), [f"cat{''.join(tokens)}"]).inputs
    counts = [
        [np.count_nonzero(block.ids == tokenizer.token_to_id(token)) for token in tokens] for block in (plain, forged)
    ]
    assert counts[0] == counts[1]
    assert len(forged.ids) > len(plain.ids)


def test_cuts_are_counted_or_refused(model: Reranker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model.score("a cat " * 300, [*DOCUMENTS[:2], CUT])
    told = "Truncated 2 of 4 texts to 512 or 2048 tokens: 2, query (on_long='error' stops instead)"
    assert caplog.messages == [told]
    with pytest.raises(InputError, match=r"^document 2 has more than the 2048 tokens of a document; shorten it, or "):
        model.score(QUERY, [*DOCUMENTS[:2], CUT], on_long="error")
    with pytest.raises(InputError, match=r"^the query has more than its 512 tokens; shorten it, or pass on_long="):
        model.score("a cat " * 300, DOCUMENTS, on_long="error")
    with pytest.raises(InputError, match=r"^document 1 is empty without the marks of the model that it spells; pass "):
        model.score(QUERY, ["cat", "<|embed_token|>"])
    with pytest.raises(InputError, match=r"^instruction is of no use: this model takes none; leave it out$"):
        model.score(QUERY, DOCUMENTS, instruction="find it")


def test_int8_keeps_the_head_exact(pack: Path, model: Reranker) -> None:
    with Reranker(pack, weights="int8", threads=1) as int8:
        found = int8.score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(found, model.score(QUERY, DOCUMENTS), rtol=0, atol=0.05)
    graph = onnx.load(pack / "default-int8.onnx", load_external_data=False).graph
    heads = [each for each in graph.initializer if "projector" in each.name]
    assert {each.data_type for each in heads} == {onnx.TensorProto.FLOAT}
    assert sorted(max(each.dims) for each in heads) == [32, PROJECTED]
    for variant in model.pack.manifest.variants.values():
        (check,) = variant.checks.values()
        assert (check.reference, check.outcome) == ("torch", "within budget")


def test_scores_that_are_not_finite(model: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListInputs, "kept", lambda self, row, output: output[: self.documents_of(row) + 1] * np.nan)
    with pytest.raises(
        PackError, match="the graph computed a score that is not a finite number; run: embedpack verify"
    ):
        model.score(QUERY, DOCUMENTS)


def test_commands(pack: Path, model: Reranker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{' '.join(text.split())}\n" for text in DOCUMENTS))
    assert main(["verify", str(pack)]) == 0
    assert main(["inspect", str(pack)]) == 0
    scores = "lists in blocks of up to 125 documents, up to 4000 tokens; a document has up to 2048, a query 512"
    assert f"scores      {scores}\n" in capsys.readouterr().out
    assert main(["rerank", str(pack), QUERY, str(texts), "--weights", "fp32", "--json", "-"]) == 0
    ranked = [hit["score"] for hit in json.loads(capsys.readouterr().out)["hits"]]
    expected = model.score(QUERY, [" ".join(text.split()) for text in DOCUMENTS])
    np.testing.assert_allclose(ranked, np.sort(expected)[::-1], atol=1e-4)


def test_the_benchmark_compares_lists_with_torch(
    pack: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_retrieval(tmp_path / "data" / "words", queries=3)
    stage = ["--first-stage", str(TINY_PACK), "--depth", "6", "--reference", str(checkpoint)]
    options = ["--data", str(tmp_path / "data"), *stage, "--variant", "default-fp32", "--threads", "1", "--no-cache"]
    # So few queries decide nothing.
    assert main(["bench", "accuracy", str(pack), *options, "--json", str(tmp_path / "report.json")]) == 1
    assert "reference: torch" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())["reranking"]
    (found,) = report["sets"][0]["variants"]
    assert found["largest_difference"] < 1e-5


def test_prepared_graphs_have_marks(pack: Path, tmp_path: Path) -> None:
    assert main(["prepare", str(pack), "--variant", "default-fp32", "--cache", str(tmp_path / "cache")]) == 0


def test_rerank_over_http(pack: Path, model: Reranker) -> None:
    settings = ServeSettings(packs=(PackSettings(name="lists", folder=pack, weights="fp32"),), threads=1)
    packs = ServedPacks.open(settings)
    running = start_app(settings, packs, packs.load, None)
    body = {"model": "lists", "query": QUERY, "documents": [*DOCUMENTS, CUT]}
    try:
        answer, refused = (
            asyncio.run(call(running.app, "POST", "/v1/rerank", json.dumps({**body, "truncate": truncate}).encode()))
            for truncate in (True, False)
        )
    finally:
        running.engine.stop()
    found = {each["index"]: each["relevance_score"] for each in answer.json["results"]}
    np.testing.assert_allclose(
        [found[row] for row in range(len(found))], model.score(QUERY, [*DOCUMENTS, CUT]), atol=1e-6
    )
    assert refused.json["detail"]["message"].startswith("documents[6] has more than the 2048 tokens of a document")


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop(name))


def _narrow(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["projector.2.weight"] = np.ascontiguousarray(tensors["projector.2.weight"][:256])

    edit_tensors(folder / "model.safetensors", change)


def _without_mark(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    document["added_tokens"] = [entry for entry in document["added_tokens"] if entry["content"] != "<|rerank_token|>"]
    (folder / "tokenizer.json").write_text(json.dumps(document))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {}
    settings["additional_special_tokens"] = []
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _with_end(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    token = next(entry for entry in document["added_tokens"] if entry["content"] == "<|endoftext|>")
    name, number = token["content"], token["id"]
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": name, "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(document))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no projector": (
        _without("projector.2.weight"),
        "{folder}: tensor 'projector.2.weight' is missing; is a shard or a file incomplete?",
    ),
    "a projector of 256 dimensions": (
        _narrow,
        "{folder}/model.safetensors: projector.2.weight has the shape [256, 16], the model's code makes it [512, 16]; "
        "restore the file",
    ),
    "a tensor of another model": (
        lambda folder: edit_tensors(
            folder / "model.safetensors",
            lambda tensors: tensors.update({"score.weight": np.zeros((1, 32), np.float32)}),
        ),
        "{folder}: unused tensors: score.weight; is it another architecture?",
    ),
    "no tensor of the tower": (
        _without("model.layers.1.self_attn.q_norm.weight"),
        "{folder}: tensor 'layers.1.self_attn.q_norm.weight' is missing; is a shard or a file incomplete?",
    ),
    "no base of the positions": (
        lambda folder: edit_json(folder / "config.json", rope_theta=None),
        "{folder}/config.json: Object missing required field `rope_theta`",
    ),
    "other code": (
        lambda folder: edit_json(folder / "config.json", auto_map={"AutoModel": "modeling.Other"}),
        "{folder}/config.json: auto_map is {{'AutoModel': 'modeling.Other'}}; AutoModel is 'modeling.Other', code of "
        "the checkpoint that is not run; if the model is of the architecture in model_type without it, remove the key",
    ),
    "no mark": (
        _without_mark,
        "{folder}/tokenizer.json: has no token <|rerank_token|>, which the prompt of lists needs; restore it",
    ),
    "a tokenizer that adds a token": (
        _with_end,
        "{folder}/tokenizer.json: adds 1 tokens to a text, which the prompt of lists does not have; restore the "
        "tokenizer of the model",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_make_no_listwise_reranker(tmp_path: Path, name: str) -> None:
    folder = make_listwise(tmp_path / "checkpoint")
    change, message = BROKEN[name]
    change(folder)
    refuse(folder, message.format(folder=folder), weights=("fp32",))


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    checkpoint = make_listwise(tmp_path / "checkpoint")
    refuse(checkpoint, f"--pooling is of no use: {checkpoint} gives scores; leave it out", pooling="last")
    message = "a list has at most 1000 tokens, one document has up to 2048; pass a larger --max-length"
    refuse(checkpoint, message, max_tokens=1000)
    adapter = write_adapter(tmp_path / "adapter", query_update())
    refuse(
        checkpoint,
        f"{adapter}: adapters of jina_reranker_v3 are not supported; merge it with PEFT's merge_and_unload, and export "
        "the merged model",
        adapters={"task": adapter},
    )
