"""Settings of a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedpack.inputs.batching import WINDOW_IMAGES
from embedpack.pack.strict import AdapterMode


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most that one request may hold.

    Attributes:
        body_bytes: bytes of a body.
        receive_seconds: seconds that a client may take to send the headers, and again for the body.
        items: number of inputs.
        images: number of images among them; their patches are in memory at once.
        tokens: tokens of all inputs together.
        vector_tokens: the same if each token has a vector in the answer.
    """

    body_bytes: int = 32_000_000
    receive_seconds: float = 30.0
    items: int = 2048
    images: int = WINDOW_IMAGES
    tokens: int = 300_000
    vector_tokens: int = 32_768


@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """A pack by its folder, and the name that requests call it by.

    `weights` None: int8 if the pack has it; `adapters` None: merged if it has them, a graph for each task;
    `device` is that of `Embedder`.
    """

    name: str
    folder: Path
    weights: str | None = None
    adapters: AdapterMode | None = None
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of a server.

    Attributes:
        packs: packs that are served.
        host, port: address; port 0 is one that the system chooses.
        api_keys: file of keys, one a line; None: everybody may call.
        queue: most requests of a process that wait or are computed at a time.
        deadline: seconds after which a request is given up.
        workers: number of processes.
        threads: threads of a run; None: the cores available to this process, divided by the workers.
        allow_urls: hosts from which images are fetched, `host` or `host:port`; empty: nothing is fetched.
        access_log: log a line for each request.
    """

    packs: tuple[PackSettings, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Path | None = None
    queue: int = 256
    deadline: float = 60.0
    workers: int = 1
    threads: int | None = None
    allow_urls: tuple[str, ...] = ()
    access_log: bool = True
    limits: Limits = Limits()
