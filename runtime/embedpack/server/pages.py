"""Pages of a server for people: one file each, with its styles and its program; nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
HTML = "text/html; charset=utf-8"

Endpoint = Callable[[Request], Awaitable[Response]]


def page(name: str) -> Endpoint:
    """Endpoint of a page. Its policy lets the browser run the page's own program alone, and call this server alone."""
    content = (FOLDER / name).read_bytes()
    headers = {
        "content-security-policy": content_policy(content),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }

    async def endpoint(request: Request) -> Response:
        return Response(content, 200, headers, HTML)

    return endpoint


def constant(content: bytes, media_type: str) -> Endpoint:
    """Endpoint of some content that does not change."""

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return endpoint


def content_policy(html: bytes) -> str:
    """Content security policy of a page: its styles and scripts by their digests."""
    rules = {
        "default-src": "'none'",
        "script-src": _digests(html, b"script"),
        "style-src": _digests(html, b"style"),
        "connect-src": "'self'",
        "img-src": "blob: data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _digests(html: bytes, tag: bytes) -> str:
    parts = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(part).digest()).decode()}'" for part in parts)
