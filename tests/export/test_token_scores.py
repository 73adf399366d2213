"""Exports of language models that score pairs: prompts are literal, scores those of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedpack import Reranker
from embedpack.engine.options import ScoreSettings
from embedpack.engine.pair_scores import PairReader
from embedpack.errors import CheckpointError
from embedpack.inputs.pack_tokenizer import open_tokenizer
from embedpack.pack.score_recipes import PairScores
from embedpack_export.pipeline import export
from tests.helpers.exports import edit_json, edit_tensors, query_update, quick, write_adapter
from tests.helpers.plans import refuse
from tests.helpers.tiny_token_scores import PLAIN, SPECIAL, literal, make_token_scores

QUERY = "how do i reset a router ?"
DOCUMENTS = ["reset the router", "the cat sleeps on a warm roof", "list files " * 9, "blue house, red door!", "\n\n a"]
IDENTITY, SIGMOID = "linear.Identity", "activation.Sigmoid"


def judged(checkpoint: Path) -> npt.NDArray[np.float32]:
    """Scores of sentence-transformers."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(checkpoint), local_files_only=True, device="cpu")
    scores: npt.NDArray[np.float32] = model.predict([(QUERY, text) for text in DOCUMENTS], batch_size=2)
    return scores


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_token_scores(tmp_path_factory.mktemp("token_scores") / "checkpoint")


@pytest.fixture(scope="module")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """The model, whose export compares its prompts and scores with transformers."""
    pack = tmp_path_factory.mktemp("token_scores") / "pack"
    export(quick(checkpoint, pack, weights=("fp32", "int8"), reference="torch"))
    return Reranker(pack, weights="fp32", threads=1)


def recipe(model: Reranker) -> PairScores:
    scores = model.pack.manifest.score
    assert isinstance(scores, PairScores)
    return scores


def ids(model: Reranker, query: str, document: str, instruction: str | None = None) -> list[int]:
    reader = PairReader(model.pack.folder, recipe(model), open_tokenizer(model.pack))
    (found,) = reader.read(query, [document], ScoreSettings(instruction=instruction)).inputs
    tokens: list[int] = found.ids.tolist()
    return tokens


def test_scores_are_those_of_sentence_transformers(model: Reranker, checkpoint: Path) -> None:
    found, expected = model.score(QUERY, DOCUMENTS), judged(checkpoint)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()
    alone = np.concatenate([model.score(QUERY, [text]) for text in DOCUMENTS])
    np.testing.assert_allclose(alone, found, rtol=1e-5, atol=1e-5)


def test_the_report_compares_scores_with_torch(model: Reranker) -> None:
    for variant in model.pack.manifest.variants.values():
        (check,) = variant.checks.values()
        assert (check.reference, check.outcome) == ("torch", "within budget")


def test_a_head_of_its_own_and_the_sigmoid_of_the_files(tmp_path: Path) -> None:
    checkpoint = make_token_scores(tmp_path / "checkpoint", tied=False, activation=SIGMOID)
    export(quick(checkpoint, tmp_path / "pack", weights=("fp32",)))
    found = Reranker(tmp_path / "pack", threads=1).score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(found, judged(checkpoint), rtol=0, atol=1e-5)
    assert 0 < found.min() < found.max() < 1


@pytest.mark.parametrize("instruction", [None, "Find what contradicts the query"])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_prompts_are_the_literal_ones(
    model: Reranker, checkpoint: Path, document: str, instruction: str | None
) -> None:
    from tokenizers import Tokenizer

    text = literal(QUERY, document) if instruction is None else literal(QUERY, document, instruction)
    expected = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(text, add_special_tokens=False)
    assert ids(model, QUERY, document, instruction) == expected.ids


@pytest.mark.parametrize("mark", [*SPECIAL, *PLAIN, "<|endoftext|>"])
def test_forged_marks_are_text(model: Reranker, checkpoint: Path, mark: str) -> None:
    from tokenizers import Tokenizer

    number = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).token_to_id(mark)
    assert number is not None
    plain = ids(model, QUERY, "cat", "judge")
    forged = ids(model, f"{QUERY}{mark}", f"{mark}cat{mark}", f"judge{mark}")
    assert forged.count(number) == plain.count(number)
    assert len(forged) > len(plain)


def test_long_documents_lose_their_end_and_never_the_prompt(tmp_path: Path, checkpoint: Path) -> None:
    export(quick(checkpoint, tmp_path / "pack", weights=("fp32",), max_tokens=400))
    model = Reranker(tmp_path / "pack", threads=1)
    whole, after = ids(model, QUERY, "cat"), recipe(model).parts[-1]
    assert isinstance(after, tuple)
    long = ids(model, QUERY, "cat" * 300)
    assert len(long) == 400
    assert long[-len(after) :] == whole[-len(after) :] == [*after]
    assert long[: len(whole) - len(after)] == whole[: -len(after)]


def test_another_template_is_found_by_the_comparison(tmp_path: Path) -> None:
    checkpoint = make_token_scores(tmp_path / "checkpoint")
    template = checkpoint / "chat_template.jinja"
    template.write_text(template.read_text().replace("<Query>: ", "<Query>: the "))
    with pytest.raises(CheckpointError, match="transformers reads pair 0 otherwise than this export"):
        export(quick(checkpoint, tmp_path / "pack", weights=("fp32",), reference="torch"))
    assert not (tmp_path / "pack").exists()


def _without_query(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<Query>", "<Question>"))


def _without_mark(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    document["added_tokens"] = [entry for entry in document["added_tokens"] if entry["content"] != "</think>"]
    (folder / "tokenizer.json").write_text(json.dumps(document))


def _of_qwen2(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["attention_bias"], config["head_dim"]
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))


def _without_modules(folder: Path) -> None:
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink()


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (
        _without_query,
        "{folder}/chat_template.jinja: is no template of Qwen3-Reranker, '<Query>:' is missing or at another place; "
        "restore the files of the model",
    ),
    (
        lambda folder: (folder / "chat_template.jinja").unlink(),
        "{folder}/chat_template.jinja: missing, the template of pairs of a model with LogitScore; restore the files of "
        "the model",
    ),
    (
        _without_mark,
        "{folder}/tokenizer.json: has no token </think>, which the prompt of pairs needs; restore it",
    ),
    (
        lambda folder: edit_json(folder / "1_LogitScore/config.json", true_token_id=9999),
        "{folder}/1_LogitScore/config.json: token 9999 is none of the 267 tokens; correct it",
    ),
    (
        lambda folder: edit_json(folder / "config.json", tie_word_embeddings=False),
        "{folder}: lm_head.weight is missing, which computes the scores; restore the files",
    ),
    (
        lambda folder: edit_tensors(
            folder / "model.safetensors",
            lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"]}),
        ),
        "{folder}/model.safetensors: has lm_head.weight next to the embedding table, and tie_word_embeddings is true "
        "in config.json; save the model again with transformers",
    ),
    (
        _of_qwen2,
        "{folder}/1_LogitScore/config.json: LogitScore is supported for Qwen3-Reranker alone; docs/models.md has the "
        "rerankers that are exported",
    ),
    (
        _without_modules,
        "{folder}: no modules.json, so it is unknown what this language model gives; for vectors pass --pooling last, "
        "for the scores of Qwen3-Reranker get the files that it is published with today, which have modules.json with "
        "LogitScore",
    ),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_files_that_make_no_reranker(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    checkpoint = make_token_scores(tmp_path / "checkpoint")
    change(checkpoint)
    refuse(checkpoint, message.format(folder=checkpoint), pooling=None)


def test_options_that_do_not_fit(tmp_path: Path, checkpoint: Path) -> None:
    refuse(checkpoint, f"--pooling is of no use: {checkpoint} gives scores; leave it out", pooling="last")
    refuse(
        checkpoint,
        "the prompt of pairs has 161 tokens, a pair at most 40; pass a larger --max-length",
        max_tokens=40,
    )
    adapter = write_adapter(tmp_path / "adapter", query_update())
    refuse(
        checkpoint,
        f"{adapter}: adapters of models with LogitScore are not supported; merge it with PEFT's merge_and_unload, and "
        "export the merged model",
        adapters={"task": adapter},
    )
