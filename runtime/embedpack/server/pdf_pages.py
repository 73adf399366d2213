"""Pages of the PDFs of requests as images, rendered outside of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing

from starlette.requests import Request

from embedpack.inputs.items import Image, Item
from embedpack.inputs.pdf import PageSize, RenderedPdf
from embedpack.server.request_errors import invalid
from embedpack.server.submission import finished

# PDFs at a time: each has a process that renders, and its pages are in memory until the answer.
DOCUMENTS = 2
# A page of A2 at 150 dots per inch has less; models read less than that.
SIZE = PageSize(max_pixels=10_000_000)


class PdfPages:
    """Processes that render pages; `limit` is the most pages of a document."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._slots = asyncio.Semaphore(DOCUMENTS)
        self._threads = ThreadPoolExecutor(DOCUMENTS, "embedpack-pdf")

    @asynccontextmanager
    async def rendered(self, content: bytes, request: Request, until: float) -> AsyncIterator[list[Item]]:
        """Pages of a PDF, held during the block.

        Errors as of `pdf_pages` and `finished`; RequestError if there are too many pages.
        """
        async with self._slot(request, until):
            document = _Document(content, self._limit)
            rendering = asyncio.get_running_loop().run_in_executor(self._threads, document.pages)
            try:
                yield await finished(rendering, request, until)
            finally:
                document.stop()
                rendering.cancel()

    @asynccontextmanager
    async def _slot(self, request: Request, until: float) -> AsyncIterator[None]:
        acquired = asyncio.ensure_future(self._slots.acquire())
        try:
            await finished(acquired, request, until)
            yield
        finally:
            if not acquired.cancel():
                self._slots.release()


class _Document:
    """A document that is rendered in a thread, until `stop`."""

    def __init__(self, content: bytes, limit: int) -> None:
        self._content = content
        self._limit = limit
        self._stopped = False
        self._rendered: RenderedPdf | None = None

    def pages(self) -> list[Item]:
        """Images of all pages."""
        with closing(RenderedPdf(self._content, SIZE)) as document:
            self._rendered = document
            if self._stopped:
                document.stop()
            document.open()
            if document.count > self._limit:
                message = f"the PDF has {document.count} pages; at most {self._limit} are taken, split it"
                raise invalid("input", message)
            return [Image(number, document.page(number + 1)) for number in range(document.count)]

    def stop(self) -> None:
        """End the process that renders."""
        self._stopped = True
        if self._rendered is not None:
            self._rendered.stop()
