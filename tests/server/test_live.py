"""A server as a process of its own: sockets, signals, exit status."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from embedpack import Embedder
from embedpack.cli.main import main
from embedpack.server.listeners import listen, warn_if_open
from tests.helpers.server_process import PATIENCE, VALID, Server, running, wait_for
from tests.helpers.tiny_pack import TINY_PACK


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that tests call."""
    with running() as started:
        started.wait_until_ready()
        yield started


def test_vectors_over_a_socket_are_those_of_embedder(server: Server, embedder: Embedder) -> None:
    answer = server.post()
    assert answer.status == 200
    expected = embedder.encode(VALID["input"]).codes
    assert (np.array([item["embedding"] for item in answer.json["data"]], np.float32) == expected).all()


def test_answers_are_sent_at_once() -> None:
    """Without TCP_NODELAY, which asyncio sets on sockets of this protocol, an answer in two parts takes 40 ms more."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("::", True)])
def test_a_server_that_everybody_reaches_is_a_warning(
    host: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_open(host)
    assert ("--api-keys" in caplog.text) is warned


def test_slow_sockets_keep_nobody_waiting(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert server.post().status == 200


def test_half_closed_and_broken_sockets_leave_the_server_at_work(server: Server) -> None:
    body = json.dumps(VALID).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for content in (head + body, head + body[:5], head[:20], b"\0\1\2", b""):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    assert server.post().status == 200


def test_logs_have_ids_and_no_texts(server: Server) -> None:
    name = server.post().headers["x-request-id"]
    server.post(VALID | {"task": "secret"})
    server.post({"model": "secret", "input": "secret"})
    last = server.request("GET", "/health").headers["x-request-id"]
    wait_for(server, last)
    line = next(line for line in server.log if name in line)
    assert re.fullmatch(rf"{name} POST /v1/embeddings 200, 1 items, \d+ tokens, [\d.]+ ms\n", line)
    assert not any("secret" in line for line in server.log)


DYING = """
from embedpack.server.jobs import Job
def die(self, processor):
    raise SystemExit(0)
Job.tokenize = die
"""


# Jobs are not begun before SIGTERM.
GATED = """
import threading
from embedpack.server.jobs import Job
from embedpack.server.process import DrainingServer
gate, prepare, handle_exit = threading.Event(), Job.tokenize, DrainingServer.handle_exit
def wait(self, processor):
    assert gate.wait(60)
    prepare(self, processor)
def receive(self, number, frame):
    handle_exit(self, number, frame)
    gate.set()
Job.tokenize, DrainingServer.handle_exit = wait, receive
"""


def test_sigterm_answers_running_requests_and_ends_with_status_0() -> None:
    with running("--no-access-log", code=GATED) as server:
        server.wait_until_ready()
        answers: list[int] = []
        large = {"model": "tiny", "input": ["a cat sleeps on the roof"] * 500, "embedding_type": "base64"}
        threads = [threading.Thread(target=lambda: answers.append(server.post(large).status)) for _ in range(8)]
        for thread in threads:
            thread.start()
        while b"embedpack_queue_requests 8.0" not in server.request("GET", "/metrics").body:
            assert server.process.poll() is None
        assert server.stop(signal.SIGTERM) == 0
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == [200] * 8
        assert len(server.log) == 1


def test_sigint_is_an_interruption() -> None:
    with running() as server:
        server.wait_until_ready()
        assert server.stop(signal.SIGINT) == 130


def test_a_dead_engine_ends_the_process() -> None:
    with running(code=DYING) as server:
        server.wait_until_ready()
        assert server.post().status == 503
        assert server.process.wait(PATIENCE) == 1
    assert any("the engine ended: SystemExit" in line for line in server.log)


def test_sighup_reads_the_keys_again(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("first\n")
    with running("--api-keys", str(keys)) as server:
        server.wait_until_ready()
        assert server.post().status == 401
        assert server.post(authorization="Bearer first").status == 200
        keys.unlink()
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "stay in force")
        assert server.post(authorization="Bearer first").status == 200
        keys.write_text("second\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "1 keys read again")
        assert server.post(authorization="Bearer first").status == 401
        assert server.post(authorization="Bearer second").status == 200


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["nowhere"], 1, "not a pack"),
        ([str(TINY_PACK), "--api-keys", "nowhere.txt"], 1, "nowhere.txt: cannot be read"),
        ([str(TINY_PACK), f"tiny={TINY_PACK}"], 2, "two packs are named 'tiny'"),
        ([f"={TINY_PACK}"], 2, "has no name or no folder"),
        ([str(TINY_PACK), "--weights", "int4", "--host", "256.0.0.1"], 1, "--host 256.0.0.1"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *options]) == status
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_pack_that_cannot_be_loaded_ends_the_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = shutil.copytree(TINY_PACK, tmp_path / "pack")
    (pack / "default-int8.onnx").unlink()
    assert main(["serve", str(pack), "--port", "0"]) == 1
    assert "default-int8.onnx: missing" in capsys.readouterr().err
