"""Faults of clients and of the host, over sockets: each has its answer or its end, and others are served."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.server_process import BEGIN, PATIENCE, VALID, Server, running
from tests.helpers.tiny_pack import TINY_PACK

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
BODY = json.dumps(VALID).encode()
GIGABYTE = 1_000_000_000
# Most that the buffers of two sockets, and of the server, take before it refuses.
MAX_BUFFERED = 32_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--receive-timeout", "0.3", "--max-body", "100000", "--queue", "300") as started:
        started.wait_until_ready()
        yield started


@pytest.fixture(autouse=True)
def still_at_work(server: Server) -> Iterator[None]:
    """The server answers after each test, and nothing waits in its queue."""
    yield
    assert server.post().status == 200
    while b"\nembedpack_queue_requests 0.0\n" not in server.request("GET", "/metrics").body:
        assert server.process.poll() is None


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def read_to_end(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_declared_gigabyte_is_refused_before_it_is_sent(server: Server) -> None:
    with connect(server) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % GIGABYTE)
        assert status_of(read_to_end(client)) == 413


def test_a_gigabyte_in_chunks_is_refused_early(server: Server) -> None:
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    sent = 0
    with connect(server) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            while sent < GIGABYTE:
                client.sendall(chunk)
                sent += len(chunk)
        except OSError:  # the server has closed the connection
            pass
    assert sent < MAX_BUFFERED
    assert b'embedpack_rejected_requests_total{reason="too_large"}' in server.request("GET", "/metrics").body


def test_headers_that_come_byte_by_byte_have_a_limit(server: Server) -> None:
    with connect(server) as client:
        client.settimeout(0.02)
        for _ in range(1000):
            try:
                client.sendall(b"P")
                assert client.recv(1) == b""
                return
            except TimeoutError:
                continue
            except OSError:  # closed before the byte
                return
    pytest.fail("the connection stays open")


def test_a_silent_connection_has_a_limit(server: Server) -> None:
    with connect(server) as client:
        assert read_to_end(client) == b""


def test_a_body_that_stops_is_answered(server: Server) -> None:
    with connect(server) as client:
        client.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        assert status_of(read_to_end(client)) == 408


def test_requests_in_one_packet_are_answered_in_order(server: Server) -> None:
    bodies = [json.dumps({"model": "tiny", "input": ["cat"] * count}).encode() for count in range(1, 9)]
    requests = [HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies]
    with connect(server) as client:
        client.sendall(b"".join(requests) + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = read_to_end(client)
    assert [len(re.findall(rb'"index"', part)) for part in answers.split(b"HTTP/1.1 200 OK")[1:]] == [*range(1, 9), 0]


def test_a_hundred_clients_that_go_leave_nothing(server: Server) -> None:
    request = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(100)]
        for client in clients:
            # Closed by a reset, with the request unanswered.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(request)


def test_bytes_that_are_no_http_are_answered(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert status_of(read_to_end(client)) == 400


def test_a_full_disk_of_the_log_stops_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["serve", f"tiny={TINY_PACK}", "--weights", "fp32", "--threads", "1", "--port", str(port)]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{BEGIN}sys.exit(main(sys.argv[1:]))", *command], stderr=full, text=True
        )
    server = Server(process, port)
    try:
        server.wait_until_listening()
        server.wait_until_ready()
        assert [server.post().status for _ in range(3)] == [200] * 3
        assert server.stop(signal.SIGTERM) == 0
    finally:
        process.kill()
        process.wait()
