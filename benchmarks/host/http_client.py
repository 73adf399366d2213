"""A server process, and a client of it that costs little: a request that is ready, over one connection."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import EmbedpackError

MODEL = "pack"
SECONDS = 120


@dataclass(frozen=True)
class Service:
    """A server, and the task that requests name."""

    port: int
    task: str

    def connect(self) -> Client:
        """Open a connection."""
        return Client(socket.create_connection(("127.0.0.1", self.port), SECONDS))

    def request(self, texts: Sequence[str]) -> bytes:
        """Bytes of a request for vectors in base64."""
        fields = {
            "model": MODEL,
            "task": self.task,
            "input": list(texts),
            "encoding_format": "base64",
            "truncate": True,
        }
        body = json.dumps(fields).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


class Client:
    """A connection that is kept open."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection

    def call(self, request: bytes) -> bytes:
        """Send a request and return the body of the answer; EmbedpackError for any status but 200."""
        self._connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length is None or not head.startswith(b"HTTP/1.1 200 "):
            raise EmbedpackError(f"the server answered: {head.decode(errors='replace')}")
        while len(body) < int(length[1]):
            body += self._receive()
        return body

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _receive(self) -> bytes:
        part = self._connection.recv(1 << 20)
        if not part:
            raise EmbedpackError("the server closed the connection")
        return part


def vectors_of(body: bytes) -> npt.NDArray[np.float32]:
    """Vectors of an answer, float32 [n, dimensions]."""
    data: list[dict[str, Any]] = json.loads(body)["data"]
    return np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data])


@contextmanager
def served(pack: str, weights: str, task: str, threads: int) -> Iterator[Service]:
    """A server of a pack in a process of its own, once it is ready; EmbedpackError if it ends."""
    options = ["--weights", weights, "--threads", str(threads), "--port", "0", "--no-access-log"]
    command = [sys.executable, "-m", "embedpack", "serve", f"{MODEL}={pack}", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.match(r"listening on http://127\.0\.0\.1:(\d+)", line)
            if found is None:
                raise EmbedpackError(f"the server did not start: {line.strip()}")
            service = Service(int(found[1]), task)
            while not _is_ready(service.port):
                if process.poll() is not None:
                    raise EmbedpackError(f"the server ended: {process.stderr.read().strip()}")
            yield service
        finally:
            process.terminate()


def _is_ready(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(64).startswith(b"HTTP/1.1 200 ")
