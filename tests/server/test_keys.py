"""Bearer keys: who may call, and files of keys that change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embedpack.errors import InputError
from embedpack.server.api_keys import ApiKeys
from embedpack.server.request_errors import RequestError
from tests.helpers.asgi import get, post
from tests.helpers.server import Running

VALID = {"model": "tiny", "input": ["a cat"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.txt"
    path.write_bytes(b"first\r\n\n  second \n")
    return path


def test_keys_are_needed_but_for_health(start: Callable[..., Running], file: Path) -> None:
    running = start(api_keys=file)
    for path in ("/v1/models", "/metrics", "/v2"):
        assert get(running.app, path).status == 401
    for path in ("/health", "/ready"):
        assert get(running.app, path).status == 200
    answer = post(running.app, VALID)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json.keys() == {"detail", "request_id", "code"}
    assert post(running.app, VALID, authorization="Bearer second").status == 200
    assert post(running.app, VALID, authorization="bearer first").status == 200
    for value, code in {"Bearer third": "AUTH_INVALID_API_KEY", "Basic first": "AUTH_INVALID_FORMAT"}.items():
        assert post(running.app, VALID, authorization=value).json["code"] == code


def test_the_file_is_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = ApiKeys(file)
    file.write_text("third\n")
    with caplog.at_level("INFO", "embedpack.server"):
        keys.reload()
    assert "1 keys read again" in caplog.text
    keys.check(b"Bearer third")
    with pytest.raises(RequestError):
        keys.check(b"Bearer first")


@pytest.mark.parametrize("content", [None, b"", b" \n", b"k\n" * 600_000])
def test_keys_stay_in_force_when_their_file_is_gone(
    file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ApiKeys(file)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    keys.reload()
    assert "stay in force" in caplog.text
    keys.check(b"Bearer first")
    with pytest.raises(InputError, match=r"keys\.txt"):
        ApiKeys(file)
