"""A server as a process of its own."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.helpers.asgi import Answer
from tests.helpers.tiny_pack import TINY_PACK

VALID = {"model": "tiny", "input": ["a secret cat"]}
# Seconds after which a test is given up; nothing waits for as long.
PATIENCE = 60
BEGIN = "import sys; from embedpack.cli.main import main\n"


@dataclass
class Server:
    """A server process, its port, and the lines of its log."""

    process: subprocess.Popen[str]
    port: int = 0
    log: list[str] = field(default_factory=list)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def post(self, fields: Any = VALID, **headers: str) -> Answer:
        return self.request("POST", "/v1/embeddings", json.dumps(fields).encode(), **headers)

    def wait_until_listening(self) -> None:
        """Wait for a server whose log is not read."""
        while self.process.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                time.sleep(0.01)
        raise AssertionError(f"the server ended with status {self.process.returncode}")

    def wait_until_ready(self) -> None:
        while self.request("GET", "/ready").status != 200:
            assert self.process.poll() is None

    def stop(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def running(*options: str, code: str = "", pack: Path = TINY_PACK) -> Iterator[Server]:
    """A server of a pack, as `tiny`, that listens; `code` runs in it first."""
    program = f"{BEGIN}{code}\nsys.exit(main(sys.argv[1:]))"
    arguments = ["serve", f"tiny={pack}", "--weights", "fp32", "--threads", "1", "--port", "0", *options]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True)
    server = Server(process)
    listening = threading.Event()

    def read(stream: IO[str]) -> None:
        for line in stream:
            server.log.append(line)
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                server.port = int(found[1])
                listening.set()
        listening.set()

    assert process.stderr is not None
    reader = threading.Thread(target=read, args=(process.stderr,))
    reader.start()
    try:
        assert listening.wait(PATIENCE)
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


def wait_for(server: Server, text: str) -> None:
    """Wait for a line of the log."""
    while not any(text in line for line in server.log):
        assert server.process.poll() is None
