"""A server process, and a client of it that costs little: a request that is ready, over one connection."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import EmbedpackError

MODEL = "pack"
SECONDS = 120
POLL_SECONDS = 0.005


@dataclass(frozen=True)
class ServerCommand:
    """Command of a server that prints its address; `environment` has variables to add."""

    arguments: Sequence[str]
    task: str
    environment: Mapping[str, str]


def embedpack_command(
    pack: Path, weights: str, task: str, threads: int, cache: str, options: Sequence[str] = ()
) -> ServerCommand:
    """Command of `embedpack serve` for a pack; `cache` has prepared graphs, if there are any."""
    fixed = ["--weights", weights, "--threads", str(threads), "--port", "0", "--no-access-log"]
    arguments = [sys.executable, "-m", "embedpack", "serve", f"{MODEL}={pack}", *fixed, *options]
    return ServerCommand(arguments, task, {"EMBEDPACK_CACHE": cache})


@dataclass(frozen=True)
class Service:
    """A server: process, port, the task that requests name, seconds from the start of the process until ready."""

    pid: int
    port: int
    task: str
    ready_s: float

    def connect(self) -> Client:
        """Open a connection."""
        return Client(socket.create_connection(("127.0.0.1", self.port), SECONDS))

    def request(self, texts: Sequence[str], encoding: str = "base64") -> bytes:
        """Bytes of a request for vectors."""
        fields = {
            "model": MODEL,
            "task": self.task,
            "input": list(texts),
            "embedding_type": encoding,
            "truncate": True,
        }
        body = json.dumps(fields).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    """Vectors of an answer in base64, float32 [n, dimensions]."""
    data: list[dict[str, Any]] = json.loads(body)["data"]
    return np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data])


@contextmanager
def served(command: ServerCommand) -> Iterator[Service]:
    """A server in a process of its own, once it is ready; EmbedpackError if it ends."""
    start = time.perf_counter()
    variables = {**os.environ, **command.environment}
    with subprocess.Popen(command.arguments, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            assert process.stderr is not None
            port = _port(process.stderr)
            while not _is_ready(port):
                if process.poll() is not None:
                    raise EmbedpackError(f"the server ended: {process.stderr.read().strip()}")
                time.sleep(POLL_SECONDS)
            yield Service(process.pid, port, command.task, time.perf_counter() - start)
        finally:
            process.terminate()


def _port(log: Iterable[str]) -> int:
    """Port of the line of a log that has it; EmbedpackError if the log ends before."""
    line = ""
    for line in log:
        if found := re.match(r"listening on http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise EmbedpackError(f"the server did not start: {line.strip()}")


def _is_ready(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(64).startswith(b"HTTP/1.1 200 ")
