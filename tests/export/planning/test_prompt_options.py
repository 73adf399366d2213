"""Prompts of the caller: --prompt and --default-prompt."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.cli.main import main
from embedpack.errors import OptionError, PackError
from embedpack.pack.folder import read_pack
from embedpack_export.commands.prompt_option import parse_prompts
from embedpack_export.pipeline import export
from embedpack_export.planning.plan import ExportPlan, make_plan
from embedpack_export.planning.prompt_options import GivenDefault, GivenPrompt, PromptOptions
from embedpack_export.planning.tasks import TaskPlan
from embedpack_export.reference.opening import model_source_of
from embedpack_export.reference.reading_check import check_reading
from tests.helpers.exports import calibration_file, edit_json, exactly, query_update, quick, write_adapter
from tests.helpers.tiny_checkpoint import make_checkpoint

FILES = TaskPlan(None, {"query": "query: ", "passage": "passage: "}, "query", "default")
ONE, TWO = {"default": FILES}, {"code": FILES, "retrieval": FILES}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without prompts, with an adapter next to it, as PEFT alone saves it."""
    folder = tmp_path_factory.mktemp("prompts")
    checkpoint = make_checkpoint(folder / "toy")
    edit_json(checkpoint / "config_sentence_transformers.json", prompts={}, default_prompt_name=None)
    write_adapter(folder / "adapter", query_update())
    return checkpoint


def plan_of(checkpoint: Path, **changes: Any) -> ExportPlan:
    return make_plan(quick(checkpoint, checkpoint.parent / "unused", **changes))


# --- the options


def test_values_are_parsed() -> None:
    found = parse_prompts(["query=search: x=y", "code:passage=", "a:b=c"], ["query", "code:passage", ""])
    assert found.prompts == (
        GivenPrompt(None, "query", "search: x=y"),
        GivenPrompt("code", "passage", ""),
        GivenPrompt("a", "b", "c"),
    )
    assert found.defaults == (GivenDefault(None, "query"), GivenDefault("code", "passage"), GivenDefault(None, ""))


@pytest.mark.parametrize("value", ["query", "=text", "code:=text", ""])
def test_values_of_another_form(value: str) -> None:
    expected = f'--prompt {value}: expected NAME=TEXT or TASK:NAME=TEXT, e.g. query="query: "'
    with pytest.raises(OptionError, match=exactly(expected)):
        parse_prompts([value], [])


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(OptionError, match=exactly("--prompt query=...: the text is not UTF-8")):
        parse_prompts(["query=\udcff"], [])


def test_prompts_are_added_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    options = parse_prompts(["code:query=find: ", "code:title=title: ", "retrieval:query=query: "], ["code:title"])
    tasks = options.applied(TWO)
    assert tasks["code"] == TaskPlan(
        None, {"query": "find: ", "passage": "passage: ", "title": "title: "}, "title", "default"
    )
    assert tasks["retrieval"] == FILES
    assert caplog.messages == [
        "task 'code': the prompt 'query' is 'find: ', of --prompt, in place of 'query: ', of the files of the model"
    ]


@pytest.mark.parametrize(("default", "expected"), [("passage", "passage"), ("default:passage", "passage"), ("", None)])
def test_the_default_prompt(default: str, expected: str | None) -> None:
    assert parse_prompts([], [default]).applied(ONE)["default"].default_prompt_name == expected


@pytest.mark.parametrize(
    ("prompts", "defaults", "message"),
    [
        (["cod:query=x"], [], "--prompt: unknown task 'cod'; known: code, retrieval; did you mean 'code'?"),
        (["query=x"], [], "--prompt query: there are several tasks, code, retrieval; name one, TASK:NAME"),
        ([], ["query"], "--default-prompt : there are several tasks, code, retrieval; name one, TASK:NAME"),
        (["code:query=x", "code:query=y"], [], "--prompt is given twice for code:query"),
        ([], ["code:query", "code:passage"], "--default-prompt is given twice for code"),
        (
            [],
            ["code:pasage"],
            "--default-prompt: unknown prompt 'pasage'; known: query, passage; did you mean 'passage'? (task 'code')",
        ),
    ],
    ids=str,
)
def test_what_is_refused(prompts: list[str], defaults: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=exactly(message)):
        parse_prompts(prompts, defaults).applied(TWO)


def test_a_task_is_named_twice_with_and_without_its_name() -> None:
    with pytest.raises(OptionError, match=exactly("--prompt is given twice for default:query")):
        parse_prompts(["query=x", "default:query=y"], []).applied(ONE)


def test_options_survive_the_manifest() -> None:
    options = parse_prompts(["code:query=find: "], ["code:query", "retrieval:"])
    record = options.record(TWO)
    assert record == {"prompts": {"code": {"query": "find: "}}, "default_prompts": {"code": "query", "retrieval": ""}}
    assert PromptOptions.of_record(json.loads(json.dumps(record))).applied(TWO) == options.applied(TWO)
    assert PromptOptions.of_record({}) == PromptOptions()


@pytest.mark.parametrize(
    "settings", [{"prompts": ["query"]}, {"prompts": {"code": "x"}}, {"default_prompts": {"a": 1}}]
)
def test_a_manifest_of_another_form(settings: dict[str, Any]) -> None:
    with pytest.raises(PackError, match=r"\Apack\.json: \$\.export\.settings: Expected .*; export the pack again\Z"):
        PromptOptions.of_record(settings)


# --- in an export


def test_a_plain_adapter_gets_prompts(plain: Path, tmp_path: Path) -> None:
    """The pack has them as if the folder named them: in vectors, fingerprint and record."""
    pack = tmp_path / "pack"
    arguments = [
        "export", str(plain), "-o", str(pack), "--adapter", f"retrieval={plain.parent / 'adapter'}",
        "--prompt", "query=query : ", "--prompt", "passage=passage : ", "--default-prompt", "query",
        "--weights", "fp32", "--reference", "graph", "--calibrate", str(calibration_file(tmp_path)),
    ]  # fmt: skip
    assert main(arguments) == 0
    model, manifest = Embedder(pack), read_pack(pack).manifest
    for name, text in (("query", "query : the cat"), ("passage", "passage : the cat"), (None, "query : the cat")):
        expected = model.encode(text, prompt_name="").decode()
        np.testing.assert_array_equal(model.encode("the cat", prompt_name=name).decode(), expected)
    assert manifest.export.settings["prompts"] == {"retrieval": {"query": "query : ", "passage": "passage : "}}
    assert manifest.export.settings["default_prompts"] == {"retrieval": "query"}
    adapters = {"retrieval": plain.parent / "adapter"}
    assert plan_of(plain, adapters=adapters).fingerprint != manifest.source.fingerprint
    # `bench` opens the same files with the prompts of the pack.
    assert model_source_of(read_pack(pack), plain, adapters).tasks["retrieval"].prompt("query") == "query : "


def test_special_tokens_of_a_prompt_are_parsed_as_those_of_the_files(plain: Path, tmp_path: Path) -> None:
    with_file = make_checkpoint(tmp_path / "toy")
    edit_json(with_file / "config_sentence_transformers.json", prompts={"query": "[SEP] a "}, default_prompt_name=None)
    plans = plan_of(plain, prompts=parse_prompts(["query=[SEP] a "], [])), plan_of(with_file)
    given, of_file = (
        plan.processor.process(plan.processor.items(["cat"]), plan.tasks["default"].prompt("query"))[0].ids.tolist()
        for plan in plans
    )
    assert given == of_file
    assert given.count(given[-1]) == 2
    assert plans[0].fingerprint == plans[1].fingerprint


def test_other_prompts_than_those_of_the_files_are_no_other_reading(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    prompts = parse_prompts(["query=find : ", "title=print "], ["title"])
    settings = quick(checkpoint, tmp_path / "pack", reference=None, prompts=prompts)
    assert make_plan(quick(checkpoint, tmp_path / "pack")).tasks["default"].prompts["query"] != "find : "
    assert check_reading(make_plan(settings), settings) == ()


def test_a_prompt_that_replaces_one_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy")
    settings = quick(checkpoint, tmp_path / "pack", weights=("fp32",), prompts=parse_prompts(["query=find : "], []))
    with caplog.at_level(logging.WARNING, "embedpack"):
        export(settings)
    assert "the prompt 'query' is 'find : ', of --prompt, in place of" in caplog.text
