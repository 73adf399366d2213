"""Sockets that listen on the address of a server."""

from __future__ import annotations

import ipaddress
import logging
import socket

from embedpack.errors import InputError, failed

logger = logging.getLogger("embedpack.server")

BACKLOG = 2048


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Socket that listens on an address, which other sockets may share; InputError if it cannot be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        # With its protocol named, unlike `socket.create_server`: asyncio sends the parts of an answer at once (without
        # waiting 40 ms for the client's acknowledgement) only if it sees that the protocol is TCP.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as cause:
        raise InputError(f"--host {host} --port {port} {failed('opened', cause)}") from cause
    return listener


def listen_for_workers(host: str, port: int, workers: int) -> list[socket.socket]:
    """Sockets of workers on one address, among which the system distributes connections; errors as of `listen`."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise InputError(f"--workers {workers} needs SO_REUSEPORT, which this system does not have; leave it out")
    # Alone first: a shared address could be one that another server of this user shares, too.
    with listen(host, port) as alone:
        port = alone.getsockname()[1]
    return [listen(host, port, shared=True) for _ in range(workers)]


def warn_if_open(host: str) -> None:
    """Log a warning about a server without keys if an address is not that of this host alone."""
    if not ipaddress.ip_address(host).is_loopback:
        logger.warning("%s is reachable from other hosts, and everybody may call: pass --api-keys FILE", host)
