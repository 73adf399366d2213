"""Several workers on one port: shared metrics, drain, dead workers, a first process that is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.server_process import PATIENCE, Server, running, wait_for
from tests.helpers.tiny_pack import TINY_PACK

WORKERS = ("--workers", "2", "--log-format", "json")


def workers_of(server: Server) -> list[int]:
    """Process ids of the workers."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_until_gone(pids: list[int]) -> None:
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with running(*WORKERS) as started:
        started.wait_until_ready()
        yield started


def test_workers_answer_together_and_end_with_status_0(server: Server) -> None:
    for _ in range(8):
        assert server.post().status == 200
    metrics = server.request("GET", "/metrics").body.decode()
    assert '\nembedpack_requests_total{path="/v1/embeddings",status="200"} 8.0\n' in metrics
    assert "\nembedpack_queue_requests 0.0\n" in metrics
    workers = workers_of(server)
    assert len(workers) == 2
    assert server.stop(signal.SIGTERM) == 0
    wait_until_gone(workers)
    lines = [json.loads(line) for line in server.log]
    assert [line["status"] for line in lines if line.get("path") == "/v1/embeddings"] == [200] * 8
    assert not any("secret" in line for line in server.log)


def test_a_dead_worker_ends_all_with_an_error(server: Server) -> None:
    workers = workers_of(server)
    os.kill(workers[0], signal.SIGKILL)
    assert server.process.wait(PATIENCE) == 1
    wait_until_gone(workers)
    wait_for(server, "was ended by SIGKILL; all workers are stopped")


def test_workers_end_with_the_process_that_started_them(server: Server) -> None:
    workers = workers_of(server)
    server.process.kill()
    wait_until_gone(workers)


def test_sigint_is_an_interruption(server: Server) -> None:
    assert server.stop(signal.SIGINT) == 130


def test_sighup_reads_the_keys_of_all_workers_again(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("first\n")
    with running(*WORKERS, "--api-keys", str(keys)) as server:
        server.wait_until_ready()
        keys.write_text("second\n")
        server.process.send_signal(signal.SIGHUP)
        while sum("1 keys read again" in line for line in server.log) < 2:
            assert server.process.poll() is None
        assert server.post(authorization="Bearer first").status == 401
        assert server.post(authorization="Bearer second").status == 200
        assert server.stop(signal.SIGTERM) == 0


def test_a_pack_that_cannot_be_loaded_is_an_error_with_its_reason(tmp_path: Path) -> None:
    pack = shutil.copytree(TINY_PACK, tmp_path / "pack")
    (pack / "default-fp32.onnx").unlink()
    with running(*WORKERS, pack=pack) as server:
        assert server.process.wait(PATIENCE) == 1
    assert any("default-fp32.onnx: missing" in line for line in server.log)
    assert any("ended with exit status 1; all workers are stopped" in line for line in server.log)
