"""The benchmark of the server, on the tiny pack."""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks.host import overload, server
from benchmarks.host.http_client import Service, embedpack_command, served
from benchmarks.host.load import closed_loop
from embedpack.errors import EmbedpackError
from tests.helpers.tiny_pack import TINY_PACK


def test_it_compares_server_and_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    options = argparse.Namespace(
        pack=TINY_PACK, variant="default-fp32", rounds=1, clients=4, threads=1, seed=1, checkpoint=None, queue=2
    )
    monkeypatch.setattr(overload, "SECONDS", 0.5)
    monkeypatch.setattr(server, "STARTS", 1)
    results = server.run(options)
    for encoding, measured in results["vectors"].items():
        assert measured["equal_alone"] == 1
        assert measured["equal_at_clients"] > 0.5
        assert (measured["max_1_minus_cosine"] or 0) <= 1e-6, encoding
    (measured,) = results["overload"]["rounds"]
    assert measured["accepted"] + measured["refused"] == measured["sent"] > 0
    assert measured["wrong"] == measured["lost"] == 0
    printed = server.table(results)
    assert "overload, --queue 2" in printed
    assert f"{results['clients']['requests']} requests, 512 texts" in printed


def test_it_counts_wrong_and_lost_answers() -> None:
    """A server that answers each request but the first with the vector of another one, or not at all."""
    vectors = np.eye(3, dtype=np.float32)

    def answer(number: int) -> bytes | None:
        body = json.dumps({"data": [{"embedding": base64.b64encode(vectors[min(number, 1)]).decode()}]})
        return None if number == 2 else f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    with ExitStack() as stack:
        port = stack.enter_context(canned(answer))
        service = Service(os.getpid(), port, "default", 0.0)
        replies = closed_loop(port, [b"0\n", b"1\n", b"2\n"], 1)
    assert [reply.status for reply in replies] == [200, 200, 0]
    assert [overload.is_wrong(reply, vectors[:1]) for reply in replies[:2]] == [False, True]
    assert service.cpu_s > 0


@contextmanager
def canned(answer: Callable[[int], bytes | None]) -> Iterator[int]:
    """A server of lines: the answer to each number, or the end of the connection."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                content = answer(int(line))
                if content is None:
                    return
                connection.sendall(content)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_requests_have_all_texts_in_their_order() -> None:
    slices = server._slices(512, 3)
    assert np.concatenate(slices).tolist() == list(range(512))
    assert {len(rows) for rows in slices[:-1]} <= set(range(1, server.MAX_TEXTS + 1))


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(EmbedpackError, match=r"the server did not start: .*not a pack"),
        served(embedpack_command(tmp_path, "fp32", "default", 1, "")),
    ):
        pass
