"""Images at addresses: from allowed hosts of the public network alone, redirects too; servers here are on loopback."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace

import pytest

from embedpack.server import image_addresses
from embedpack.server.app import make_app
from embedpack.server.image_addresses import ImageAddresses, Target, is_public
from embedpack.server.request_errors import RequestError
from tests.helpers.asgi import call
from tests.helpers.server import Running

PUBLIC = "93.184.215.14"
HOSTS = ("images.example", "other.example", "images.example:8080", "inside.example", "half.example")
ADDRESSES = {"inside.example": ["10.0.0.5"], "half.example": [PUBLIC, "::1"]}
OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
FOUND = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n"


@dataclass
class Internet:
    """A resolver and a server of canned answers by host and path, which remember the names and the requests."""

    answers: dict[str, bytes]
    resolved: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        return ADDRESSES.get(host, [PUBLIC])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        path = head.split(b" ")[1].decode()
        writer.write(self.answers[path])
        if self.answers[path].endswith(b"slow"):
            await reader.read()  # until the client goes
        writer.close()
        await writer.wait_closed()

    async def fetch(self, url: str) -> bytes:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def connect(address: str, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            self.connected.append(address)
            return await asyncio.open_connection("127.0.0.1", port)

        async with server:
            try:
                return await ImageAddresses(HOSTS, self.resolve, connect).fetch(url, "input[0].image")
            finally:
                await asyncio.gather(*self.tasks, return_exceptions=True)


def fetched(internet: Internet, url: str) -> bytes:
    return asyncio.run(internet.fetch(url))


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 3\r\n\r\nPNG",
        OK + b"\r\nPNG",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nPNG\r\n0\r\n\r\n",
    ],
)
def test_an_image_is_fetched_from_the_address_that_was_checked(answer: bytes) -> None:
    internet = Internet({"/a.png?b=1": answer, "/": FOUND % b"//Other.example/a.png?b=1"})
    assert fetched(internet, "http://images.example:8080/") == b"PNG"
    assert internet.resolved == ["images.example", "other.example"]
    assert internet.connected == [PUBLIC] * 2
    assert internet.requests[0].startswith(b"GET / HTTP/1.1\r\nHost: images.example:8080\r\n")
    assert internet.requests[1].startswith(b"GET /a.png?b=1 HTTP/1.1\r\nHost: other.example\r\n")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://evil.example/", "evil.example is not one of the hosts"),
        ("http://images.example:8081/", "images.example:8081 is not one of the hosts"),
        ("http://images.example.evil/", "is not one of the hosts"),
        ("http://images.example@evil.example/", "without a user"),
        ("http://[::1]/", "::1 is not one of the hosts"),
        ("http://127.0.0.1/", "127.0.0.1 is not one of the hosts"),
        ("http://images.example:x/", "not a URL"),
        ("file:///etc/passwd", "http or https URL"),
        ("http://images.example/caf\u00e9 x", "in ASCII"),
        ("http://inside.example/", "inside.example has an address of a private network"),
        ("http://half.example/", "half.example has an address of a private network"),
        ("http://images.example/inside", "inside.example has an address of a private network"),
        ("http://images.example/evil", "evil.example is not one of the hosts"),
        ("http://images.example/file", "http or https URL"),
        ("http://images.example/loop", "more than 3 redirects"),
        ("http://images.example/missing", "no image, but status 404"),
        ("http://images.example/page", "no image, but status 200"),
        ("http://images.example/large", "more than 100 bytes"),
        ("http://images.example/endless", "more than 100 bytes"),
        ("http://images.example/cut", "cannot be fetched: RemoteProtocolError"),
        ("http://images.example/noise", "cannot be fetched: RemoteProtocolError"),
        ("http://images.example/waits", "not fetched within 0.2 seconds"),
    ],
)
def test_what_is_not_fetched(url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    internet = Internet(
        {
            "/inside": FOUND % b"http://inside.example/",
            "/evil": FOUND % b"http://evil.example/",
            "/file": FOUND % b"file:///etc/passwd",
            "/loop": FOUND % b"/loop",
            "/missing": b"HTTP/1.1 404 Not Found\r\nContent-Type: image/png\r\nContent-Length: 0\r\n\r\n",
            "/page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
            "/large": OK + b"Content-Length: 101\r\n\r\n" + b"a" * 101,
            "/endless": OK + b"\r\n" + b"a" * 10_000,
            "/cut": OK + b"Content-Length: 9\r\n\r\na",
            "/noise": b"\0\1\2\r\n\r\n",
            "/waits": OK + b"Content-Length: 9\r\n\r\nslow",
        }
    )
    monkeypatch.setattr(image_addresses, "MAX_BYTES", 100)
    monkeypatch.setattr(image_addresses, "SECONDS", 0.2 if "waits" in url else 30.0)
    with pytest.raises(RequestError, match=r"input\[0\]\.image: ") as refused:
        fetched(internet, url)
    assert message in refused.value.message
    assert set(internet.connected) <= {PUBLIC}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True), ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
        ("fc00::1", False), ("fe80::1%eth0", False), ("ff02::1", False), ("::ffff:10.0.0.1", False),
        ("::ffff:169.254.169.254", False), ("64:ff9b::a00:1", False), ("2002:a00:1::", False),
        (f"::ffff:{PUBLIC}", True),
    ],
)  # fmt: skip
def test_addresses_of_the_public_network(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_request_has_the_images_that_were_fetched(images: Running) -> None:
    """An image that is fetched is read like one in the body: this one is none, with the number of its input."""
    internet = Internet({"/a": OK + b"Content-Length: 2\r\n\r\nhi"})

    class Fetching(ImageAddresses):
        async def fetch(self, url: str, field: str) -> bytes:
            assert field == "input[1]"
            return await internet.fetch(url)

    async def post(allowed: bool) -> tuple[int, str]:
        service = replace(
            images.service,
            settings=replace(images.service.settings, allow_urls=HOSTS if allowed else ()),
            addresses=Fetching(HOSTS),
        )
        fields = {"model": "tiny", "input": [{"text": "a"}, {"image": "http://images.example/a"}]}
        answer = await call(make_app(service, None), "POST", "/v1/embeddings", json.dumps(fields).encode())
        return answer.status, answer.json["detail"]

    status, detail = asyncio.run(post(True))
    assert status == 422
    assert "image 1 is no image that can be read" in detail
    status, detail = asyncio.run(post(False))
    assert status == 422
    assert "this server fetches nothing from addresses" in detail
    assert len(internet.requests) == 1
