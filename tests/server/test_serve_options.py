"""Options of `embedpack serve`: flags, environment variables, the file of --config, and which of them holds."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from embedpack.cli.log import json_lines, log_to_stderr
from embedpack.cli.main import main
from embedpack.cli.parser import Parser
from embedpack.cli.serve import _settings, add_arguments
from embedpack.cli.serve_options import OPTIONS, PREFIX, option_values
from embedpack.server.settings import Limits, PackSettings, ServeSettings
from tests.helpers.tiny_pack import TINY_PACK

SOURCES = ("file", "variable", "flag")
# A valid value of each option for each source, as text; all of them differ from the default.
TEXTS = {
    "host": ("h1", "h2", "h3"), "api-keys": ("k1", "k2", "k3"), "weights": ("fp32", "int8", "int4"),
    "adapters": ("merged", "switchable", "merged"), "log-format": ("json", "json", "json"),
    "allow-urls": ("a", "a,b:8443", "c"), "access-log": ("false", "false", "false"), "deadline": ("0.5", "1.5", "2.5"),
    "receive-timeout": ("0.1", "0.2", "0.3"), "device": ("cuda", "auto", "cuda"),
}  # fmt: skip
NUMBERS = ("11", "12", "13")


def flags(*arguments: str) -> argparse.Namespace:
    parser = Parser()
    add_arguments(parser)
    return parser.parse(arguments)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_flag_holds_before_a_variable_before_the_file(name: str, tmp_path: Path) -> None:
    option = OPTIONS[name]
    texts = dict(zip(SOURCES, TEXTS.get(name, NUMBERS), strict=True))
    quoted = json.dumps(texts["file"]) if option.kind == "text" else texts["file"]
    (tmp_path / "server.toml").write_text(f"{name} = {quoted}\n")
    for count, given in ((n, set(c)) for n in range(4) for c in itertools.combinations(SOURCES, n)):
        arguments = ["--config", str(tmp_path / "server.toml")] if "file" in given else []
        if "flag" in given:
            arguments += ["--no-access-log"] if option.kind == "switch" else [f"--{name}", texts["flag"]]
        environment = {option.variable: texts["variable"]} if "variable" in given else {}
        found = option_values(flags(*arguments), environment)
        expected = option.parse(texts[max(given, key=SOURCES.index)]) if count else option.default
        assert found[name] == expected
        assert {key: value for key, value in found.items() if key not in (name, "packs")} == {
            key: each.default for key, each in OPTIONS.items() if key != name
        }


def test_packs_and_the_file_can_be_named_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('packs = ["a=1", "b=2"]\n')
    assert option_values(flags(), {PREFIX + "CONFIG": str(path)})["packs"] == ["a=1", "b=2"]
    variable = {PREFIX + "CONFIG": str(path), PREFIX + "PACKS": os.pathsep.join(["c=3", "d=4"])}
    assert option_values(flags(), variable)["packs"] == ["c=3", "d=4"]
    assert option_values(flags("e=5"), variable)["packs"] == ["e=5"]


def test_defaults_are_those_of_the_settings() -> None:
    settings = _settings(option_values(flags("x=y"), {"EMBEDPACK_CACHE": ""}))
    assert settings == ServeSettings(packs=(PackSettings(name="x", folder=Path("y")),))
    assert settings.limits == Limits()


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ("prot = 1", 2, "unknown key 'prot'; known: packs, host, port,"),
        ("prot = 1", 2, "did you mean 'port'?"),
        ("[limits]\nport = 1", 2, "unknown key 'limits'"),
        ("port = 70000", 2, "server.toml: port: '70000' is not a whole number from 0 to 65535"),
        ("port = true", 2, "server.toml: port is True; it must be a number"),
        ("port = 1.5", 2, "server.toml: port: '1.5' is not a whole number"),
        ('port = "80"', 2, "server.toml: port is '80'; it must be a number"),
        ("api-keys = 5", 2, "api-keys is 5; it must be a text"),
        ("access-log = 1", 2, "access-log is 1; it must be a switch"),
        ('weights = "int7"', 2, "weights: unknown value 'int7'; known: fp32, fp16, int8, int4"),
        ('allow-urls = "http://a/"', 2, "allow-urls: 'http://a/' is not the name of a host"),
        ("deadline = 0", 2, "deadline: '0' is not a number of seconds above 0"),
        ("packs = [1]", 2, "packs is [1]; it must be a list such as"),
        ("", 2, "no pack is named"),
        ("port = ", 1, "server.toml: not a TOML file"),
        ("x = " + "[" * 20_000, 1, "server.toml: not a TOML file"),
        (b"\xff", 1, "server.toml: not a TOML file"),
        ("#" * 1_000_001, 1, "server.toml: more than 1000000 bytes"),
        (None, 1, "server.toml: cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    content: Any, status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "server.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["serve", "--config", str(tmp_path / "server.toml")]) == status
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("QUEU", "1", f"unknown environment variable '{PREFIX}QUEU'"),
        ("QUEUE", "x", f"environment variable {PREFIX}QUEUE: 'x' is not a whole number of at least 1"),
        ("ACCESS_LOG", "maybe", "unknown value 'maybe'; known: true, false"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_line(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PREFIX + variable, value)
    assert main(["serve", str(TINY_PACK)]) == 2
    assert message in capsys.readouterr().err


def test_a_wrong_flag_is_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", str(TINY_PACK), "--port", "70000"])
    assert stopped.value.code == 2
    assert "'70000' is not a whole number from 0 to 65535" in capsys.readouterr().err


def test_lines_of_json_have_facts_or_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("embedpack.access")
    with log_to_stderr(verbose=False, quiet=False), json_lines(enabled=True):
        logger.info("%s", "x", extra={"facts": {"id": "x", "status": 200}})
        logger.warning("a\n%s", "\u202eb")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first.pop("time")[-1] == second.pop("time")[-1] == "Z"
    assert first == {"level": "info", "logger": "embedpack.access", "id": "x", "status": 200}
    assert second == {"level": "warning", "logger": "embedpack.access", "message": "a\n\u202eb"}
