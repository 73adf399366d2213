"""Token ids of an export and of the model's own libraries: the same, or an error that names the cause."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.checkpoints.make_v4 import make_v4
from embedpack import CheckpointError
from embedpack_export.families.heads import SingleHead
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.settings import ExportSettings
from embedpack_export.reference.reading_check import check_reading
from embedpack_export.reference.torch.own_reading import TextIds, open_reading
from tests.helpers.exports import edit_json, quick, write_adapter
from tests.helpers.exports import query_update as update
from tests.helpers.tiny_checkpoint import make_checkpoint
from tests.helpers.tiny_decoder import make_decoder
from tests.helpers.tiny_families import families_of

Change = Callable[[ExportPlan], ExportPlan]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("reading") / "toy")


def settings_of(folder: Path, **changes: Any) -> ExportSettings:
    return quick(folder, folder.parent / "pack", reference=None, **changes)


def checked(folder: Path, **changes: Any) -> tuple[str, ...]:
    settings = settings_of(folder, **changes)
    return check_reading(make_plan(settings), settings)


# --- the same ids


@pytest.mark.parametrize("model_type", families_of("encoder"))
def test_encoders_are_read_as_sentence_transformers_reads_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model_type: str
) -> None:
    folder = make_checkpoint(tmp_path / "toy", model_type)
    with caplog.at_level(logging.INFO, "embedpack"):
        assert checked(folder) == ()
    assert "tokens of 4 texts are those of sentence-transformers" in caplog.text


@pytest.mark.parametrize("model_type", families_of("decoder"))
def test_decoders_are_read_as_transformers_reads_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model_type: str
) -> None:
    folder = make_decoder(tmp_path / "toy", model_type)
    with caplog.at_level(logging.INFO, "embedpack"):
        assert checked(folder, pooling="last") == ()
    assert "tokens of 4 texts are those of transformers" in caplog.text


def test_texts_of_a_model_that_reads_images_are_compared_too(tmp_path: Path) -> None:
    assert checked(make_v4(tmp_path / "v4"), tasks=("code",)) == ()


def test_a_length_limit_of_the_user_is_no_difference(checkpoint: Path) -> None:
    assert checked(checkpoint, max_tokens=12) == ()


def test_texts_that_spell_special_tokens_are_left_out(checkpoint: Path, tmp_path: Path) -> None:
    """They are text here on purpose, and the reference of `bench` reads them as the pack does."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("the cat [SEP] sleeps", "a cat")))
    assert checked(checkpoint, calibrate=texts) == ()
    plan = make_plan(settings_of(checkpoint))
    there = open_reading(plan, "default").ids("the cat [SEP] sleeps", "")
    (here,) = TextIds(plan, "default")(["the cat [SEP] sleeps"], "")
    assert not np.array_equal(here, there)
    assert here.tolist() == plan.processor.process(plan.processor.items(["the cat [SEP] sleeps"]), "")[0].ids.tolist()


# --- other ids


def with_other_limit(plan: ExportPlan) -> ExportPlan:
    return replace(plan, texts=replace(plan.texts, max_tokens=20))


def with_other_prompt(plan: ExportPlan) -> ExportPlan:
    task = plan.tasks["default"]
    return replace(plan, tasks={"default": replace(task, prompts={**task.prompts, "query": "question: "})})


def with_other_tokenizer(change: Callable[[dict[str, Any]], object]) -> Change:
    def changed(plan: ExportPlan) -> ExportPlan:
        content = json.loads(plan.tokenizer_json)
        change(content)
        return replace(plan, texts=replace(plan.texts, tokenizer_json=json.dumps(content).encode()))

    return changed


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (with_other_limit, r"the length limit \(32 there, 20 here; model_max_length"),
        (with_other_prompt, r"the prompts of config_sentence_transformers\.json"),
        (with_other_tokenizer(lambda content: content["normalizer"].update(lowercase=False)), "lower case"),
        (with_other_tokenizer(lambda content: content.update(post_processor=None)), "the special tokens around a text"),
    ],
    ids=["limit", "prompt", "case", "special tokens"],
)
def test_another_reading_is_told_by_its_cause(checkpoint: Path, change: Change, cause: str) -> None:
    settings = settings_of(checkpoint)
    with pytest.raises(CheckpointError, match=rf"\A{checkpoint}: sentence-transformers reads text \d+.*{cause}"):
        check_reading(change(make_plan(settings)), settings)


def test_another_pooling_is_an_error_unless_it_was_asked_for(checkpoint: Path) -> None:
    settings = settings_of(checkpoint)
    plan = replace(make_plan(settings), single=SingleHead("last"))
    with pytest.raises(CheckpointError, match="sentence-transformers pools with 'mean', this export with 'last'"):
        check_reading(plan, settings)
    assert checked(checkpoint, pooling="last") == ()


def test_the_message_names_the_first_token_that_differs(checkpoint: Path) -> None:
    settings = settings_of(checkpoint)
    with pytest.raises(CheckpointError) as raised:
        check_reading(with_other_prompt(make_plan(settings)), settings)
    assert "reads text 0 under the prompt 'query' otherwise than this export: token 1 is 'query' there" in str(
        raised.value
    )
    assert "of 11 and 18 tokens" in str(raised.value)


def test_a_difference_stops_an_export_before_it_writes_anything(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpack_export.pipeline.make_plan", lambda settings: with_other_limit(make_plan(settings)))
    with pytest.raises(CheckpointError, match="the length limit"):
        export(replace(settings_of(checkpoint), output=tmp_path / "packs" / "toy"))
    assert not (tmp_path / "packs").exists()


# --- files of the adapter


def test_prompts_of_the_adapter_are_those_that_count(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", update(), target_modules=["query"])
    file = adapter / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "find: "}, "default_prompt_name": "query"}))
    settings = settings_of(checkpoint, adapters={"code": adapter})
    plan = make_plan(settings)
    assert dict(plan.tasks["code"].prompts)["query"] == "find: "
    assert check_reading(plan, settings) == ()
    reading = open_reading(plan, "code")
    assert (reading.prompts.texts["query"], reading.prompts.default) == ("find: ", "query")


def test_the_tokenizer_of_the_adapter_is_the_one_that_counts(checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", update(), target_modules=["query"])
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (adapter / "tokenizer.json").write_text(json.dumps(content))
    plain = open_reading(make_plan(settings_of(checkpoint)), "default")
    adapted = open_reading(make_plan(settings_of(checkpoint, adapters={"code": adapter})), "code")
    assert plain.pieces(plain.ids("Cat", ""))[1] == "cat"
    assert adapted.pieces(adapted.ids("Cat", ""))[1] != "cat"


@pytest.mark.parametrize(("stated", "expected"), [(None, 32), (40, 32), (20, 20)])
def test_the_limit_of_an_adapters_tokenizer_counts_only_if_it_states_another(
    tmp_path: Path, stated: int | None, expected: int
) -> None:
    """sentence_bert_config.json has 32, the checkpoint's tokenizer 40."""
    folder = make_checkpoint(tmp_path / "toy")
    edit_json(folder / "tokenizer_config.json", model_max_length=40)
    adapter = write_adapter(tmp_path / "adapter", update(), target_modules=["query"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, adapter / name)
    edit_json(adapter / "tokenizer_config.json", model_max_length=stated)
    settings = settings_of(folder, adapters={"code": adapter})
    plan = make_plan(settings)
    assert plan.max_tokens == expected
    assert check_reading(plan, settings) == ()


# --- not compared


@pytest.mark.parametrize("package", ["torch", "transformers", "sentence_transformers"])
def test_without_the_libraries_log_and_page_tell_that_nothing_was_compared(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, package: str
) -> None:
    find_spec = "embedpack_export.reference.reading_check.importlib.util.find_spec"
    monkeypatch.setattr(find_spec, lambda name: None if name == package else name)
    with caplog.at_level(logging.WARNING, "embedpack"):
        export(replace(settings_of(checkpoint), output=tmp_path / "pack", weights=("fp32",)))
    told = "The reading of inputs (tokens, prompts, length limit) was not compared with the model's own libraries: "
    assert f"{told}this needs '{package}', which is not installed" in caplog.text
    page = (tmp_path / "pack" / "report" / "index.html").read_text("utf-8")
    figures = json.loads((tmp_path / "pack" / "report" / "accuracy.json").read_text())
    assert "The reading of inputs (tokens, prompts, length limit) was not compared" in page
    assert any(note.startswith(told) for note in figures["notes"])


def test_a_tokenizer_that_transformers_refuses_is_not_compared(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "toy")
    edit_json(folder / "tokenizer_config.json", tokenizer_class="XLMRobertaTokenizer")
    (note,) = checked(folder)
    assert "was not compared with the model's own libraries" in note
    assert "transformers or PEFT fails at it with" in note
