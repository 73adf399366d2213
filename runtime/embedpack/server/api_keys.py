"""Bearer keys from a file, one a line."""

from __future__ import annotations

import hmac
import logging
from pathlib import Path

from embedpack.errors import InputError, failed
from embedpack.server.request_errors import ErrorKind, RequestError

logger = logging.getLogger("embedpack.server")

SCHEME = b"bearer "
MAX_FILE_BYTES = 1_000_000


class ApiKeys:
    """Keys of a file."""

    def __init__(self, path: Path) -> None:
        """Read the keys; InputError if there are none."""
        self._path = path
        self._keys = _read(path)

    def reload(self) -> None:
        """Read the file again; if it has no keys any more, the old ones stay in force, and an error is logged."""
        try:
            self._keys = _read(self._path)
        except InputError as cause:
            logger.error("%s; the keys that were read before stay in force", cause)
        else:
            logger.info("%s: %d keys read again", self._path, len(self._keys))

    def check(self, header: bytes | None) -> None:
        """Check an Authorization header; RequestError without one of the keys. Its time does not depend on them."""
        if header is None:
            raise RequestError(ErrorKind.MISSING_KEY, "the header is missing: Authorization: Bearer KEY")
        if header[: len(SCHEME)].lower() != SCHEME:
            raise RequestError(ErrorKind.MALFORMED_KEY, "the header has another form than: Authorization: Bearer KEY")
        key = header[len(SCHEME) :].strip()
        # All are compared, so that the time does not show which one is similar.
        if not sum([hmac.compare_digest(key, known) for known in self._keys]):
            raise RequestError(ErrorKind.UNKNOWN_KEY, "the key is not one of this server")


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as cause:
        raise InputError(f"{path}: {failed('read', cause)}") from cause
    keys = tuple(dict.fromkeys(line.strip() for line in content.splitlines() if line.strip()))
    if not keys or len(content) > MAX_FILE_BYTES:
        raise InputError(f"{path}: {len(content)} bytes, {len(keys)} keys; write one key a line")
    return keys
