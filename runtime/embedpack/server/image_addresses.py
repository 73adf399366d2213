"""Images at addresses, which are fetched from hosts that the owner of the server allows, and from no private network.

A name is resolved once for each request, and the connection goes to the address that was checked: a name that changes
its address meanwhile (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import h11
from starlette.requests import Request

from embedpack.server.request_errors import invalid
from embedpack.server.submission import finished

# Limits of an image, as those of the hosted API, and of the requests whose images are in memory at a time.
SECONDS = 8.0
REDIRECTS = 3
MAX_BYTES = 8_000_000
REQUESTS = 4
PORTS = {"http": 80, "https": 443}
REDIRECT = (301, 302, 303, 307, 308)
# RFC 3986 without characters that could end a line of a request.
PATH = re.compile(r"[\x21-\x7e]+")
# Addresses of IPv4 in those of IPv6 (RFC 6052).
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Target:
    """Parts of an address that a request needs."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """Host, with a port that is not that of the scheme."""
        return self.host if self.port == PORTS[self.scheme] else f"{self.host}:{self.port}"


Resolve = Callable[[str, int], Awaitable[list[str]]]
# Opens a connection to an IP address, which was checked, for a target.
Connect = Callable[[str, Target], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def resolve(host: str, port: int) -> list[str]:
    """IP addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def connect(address: str, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection, with TLS and a check of the certificate for https."""
    if target.scheme == "http":
        return await asyncio.open_connection(address, target.port)
    context = ssl.create_default_context()
    return await asyncio.open_connection(address, target.port, ssl=context, server_hostname=target.host)


class ImageAddresses:
    """Fetches images from some hosts: `host` for the ports of http and https, `host:port` for another."""

    def __init__(self, hosts: Collection[str], resolve: Resolve = resolve, connect: Connect = connect) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._resolve = resolve
        self._connect = connect
        self._slots = asyncio.Semaphore(REQUESTS)

    @asynccontextmanager
    async def fetched(
        self, addresses: Mapping[int, str], request: Request, until: float
    ) -> AsyncIterator[dict[int, bytes]]:
        """Images by the number of their input, held during the block; errors as of `fetch` and `finished`."""
        async with self._slots:
            fetches = asyncio.gather(*(self.fetch(url, f"input[{number}]") for number, url in addresses.items()))
            try:
                contents = await finished(fetches, request, until)
            finally:
                fetches.cancel()
            yield dict(zip(addresses, contents, strict=True))

    async def fetch(self, url: str, field: str) -> bytes:
        """Content of an image; RequestError if its address is refused, or does not give an image in time."""
        try:
            async with asyncio.timeout(SECONDS):
                for _ in range(REDIRECTS + 1):
                    content = await self._get(self._target(url, field), field)
                    if isinstance(content, bytes):
                        return content
                    url = urljoin(url, content)
        except TimeoutError as cause:
            raise invalid(field, f"the image was not fetched within {SECONDS:g} seconds") from cause
        except (OSError, h11.RemoteProtocolError, UnicodeError) as cause:
            raise invalid(field, f"the image cannot be fetched: {type(cause).__name__}") from cause
        raise invalid(field, f"the address has more than {REDIRECTS} redirects")

    def _target(self, url: str, field: str) -> Target:
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError as cause:
            raise invalid(field, "the address is not a URL") from cause
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.hostname or ""
        if parts.scheme not in PORTS or not host or "@" in parts.netloc or not PATH.fullmatch(path):
            raise invalid(field, "the address has to be an http or https URL without a user, in ASCII")
        target = Target(parts.scheme, host, port, path)
        if target.name not in self._hosts:
            raise invalid(field, f"{target.name} is not one of the hosts that this server fetches from (--allow-urls)")
        return target

    async def _get(self, target: Target, field: str) -> bytes | str:
        """Content of an image, or the address of a redirect."""
        addresses = await self._resolve(target.host, target.port)
        if not addresses or not all(map(is_public, addresses)):
            raise invalid(field, f"{target.host} has an address of a private network, from which nothing is fetched")
        reader, writer = await self._connect(addresses[0], target)
        try:
            client = h11.Connection(h11.CLIENT)
            headers = [("Host", target.name), ("Accept", "image/*"), ("Connection", "close")]
            writer.write(client.send(h11.Request(method="GET", target=target.path, headers=headers)) or b"")
            client.send(h11.EndOfMessage())
            return await _content(client, reader, field)
        finally:
            writer.close()


async def _content(client: h11.Connection, reader: asyncio.StreamReader, field: str) -> bytes | str:
    content = bytearray()
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            if event.status_code in REDIRECT and "location" in headers:
                return headers["location"]
            if event.status_code != 200 or not headers.get("content-type", "").lower().startswith("image/"):
                raise invalid(field, f"the address gives no image, but status {event.status_code}")
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > MAX_BYTES:
                raise invalid(field, f"the image has more than {MAX_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(content)
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("the connection was closed")


def is_public(address: str) -> bool:
    """True for an IP address of the public network; of an IPv6 address that holds one of IPv4, that one counts too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner: ipaddress.IPv4Address | None = None
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return all(each.is_global and not each.is_multicast for each in ((ip,) if inner is None else (inner,)))
