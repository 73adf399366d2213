"""PDFs in requests: pages as inputs, limits, documents that cannot be rendered."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from PIL import Image
from starlette.requests import Request

from embedpack.server.pdf_pages import DOCUMENTS, PdfPages
from embedpack.server.request_errors import ErrorKind, RequestError
from tests.helpers.asgi import call, post
from tests.helpers.pdfs import page_without_end
from tests.helpers.server import Running


def pdf(pages: int) -> bytes:
    """A document of small gray pages."""
    stream = io.BytesIO()
    first, *others = (Image.new("L", (20, 10 + number)) for number in range(pages))
    first.save(stream, "PDF", save_all=True, append_images=others)
    return stream.getvalue()


def field(content: bytes) -> dict[str, str]:
    return {"pdf": base64.b64encode(content).decode()}


@pytest.mark.parametrize(
    ("inputs", "name", "message"),
    [
        ([field(b"%PDF"), "a cat"], "input[0]", "send each PDF by itself"),
        (["a cat", field(b"%PDF")], "input[1]", "send each PDF by itself"),
        ({"pdf": "aGk=", "text": "a cat"}, "input[0]", "pass one of text, image and pdf"),
        ({"pdf": "!!!"}, "input[0].pdf", "is not base64"),
        ({"pdf": "https://example.org/a.pdf"}, "input[0].pdf", "fetches nothing"),
        ({"pdf": ""}, "input", "is empty"),
        (field(b"hello"), "input", "is damaged or no PDF"),
        ([field(pdf(9))], "input", "has 9 pages; at most 8 are taken"),
    ],
)
def test_pdfs_that_cannot_be_used(images: Running, inputs: Any, name: str, message: str) -> None:
    answer = post(images.app, {"model": "tiny", "input": inputs})
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, name)
    assert message in answer.json["detail"]


def test_packs_without_images_take_no_pdfs(shared: Running) -> None:
    answer = post(shared.app, {"model": "tiny", "input": field(pdf(1))})
    assert answer.json["detail"] == "input: tiny reads texts only"


def test_late_chunking_takes_no_pdfs(images: Running) -> None:
    answer = post(images.app, {"model": "tiny", "input": field(pdf(1)), "late_chunking": True})
    assert answer.json["errors"][0]["field"] == "late_chunking"


async def waiting(request: Callable[[], Any] | None = None) -> dict[str, Any]:
    """A client that stays."""
    await asyncio.Event().wait()
    raise AssertionError


REQUEST = Request({"type": "http"}, waiting)


def test_pages_are_rendered_in_order_and_slots_are_given_back() -> None:
    async def run() -> None:
        pages = PdfPages(8)
        for count in range(1, DOCUMENTS + 3):
            async with pages.rendered(pdf(count), REQUEST, perf_counter() + 60) as items:
                assert [item.number for item in items] == list(range(count))
                heights = [item.source.shape[0] for item in items]  # type: ignore[union-attr]
                assert heights == sorted(set(heights))

    asyncio.run(run())


def test_a_page_without_end_is_given_up_at_the_deadline() -> None:

    async def attempt(pages: PdfPages) -> RequestError:
        with pytest.raises(RequestError) as caught:
            async with pages.rendered(page_without_end(), REQUEST, perf_counter() + 0.5):
                raise AssertionError
        return caught.value

    async def run() -> None:
        pages = PdfPages(8)
        errors = await asyncio.gather(*(attempt(pages) for _ in range(DOCUMENTS + 2)))
        assert [error.kind for error in errors] == [ErrorKind.DEADLINE] * (DOCUMENTS + 2)
        # The next document is rendered as soon as a process is free.
        async with pages.rendered(pdf(1), REQUEST, perf_counter() + 60) as items:
            assert len(items) == 1

    asyncio.run(run())


def test_a_client_that_is_gone_frees_its_slot(images: Running) -> None:
    body = json.dumps({"model": "tiny", "input": field(pdf(2))}).encode()

    async def run() -> None:
        gone = asyncio.Event()
        gone.set()
        for _ in range(DOCUMENTS + 1):
            answer = await call(images.app, "POST", "/v1/embeddings", body, gone=gone)
            assert answer.status == 499

    asyncio.run(run())
