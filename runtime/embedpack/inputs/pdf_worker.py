"""Program of the process that renders PDF pages: requests on standard input, pixels on standard output.

PDFium can compute without end, or take all memory, for a file of a few hundred bytes. Here it is limited, and can be
stopped. The program is run by its path and imports nothing of embedpack, so that it starts quickly.

A request is a line of JSON: the first an `OpenRequest`, with the document behind it if it has no path, the others a
page number. The answer is a line of JSON with "error" and "message", or with "count" (pages of the document), or with
"height" and "width" before the pixels.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

POINTS_PER_INCH = 72
CHANNELS = 3


class OpenRequest(TypedDict):
    """First request: absolute `path`, or None if a document of `size` bytes follows; limits of a page, and `memory`.

    A page has `dpi`, at most `max_pixels`, and takes at most so many `seconds` of CPU.
    """

    path: str | None
    size: int
    dpi: int
    max_pixels: int
    seconds: int
    memory: int


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Open the document of the first request, and render the pages of the others, until the requests end."""
    opening: OpenRequest = json.loads(requests.readline())
    _limit("RLIMIT_AS", opening["memory"])
    _limit_seconds(opening["seconds"])
    try:
        document = open_document(opening["path"] or requests.read(opening["size"]))
    except Exception as cause:  # pypdfium2 raises many types, see below
        _answer(answers, error=_kind(cause), message=str(cause))
        return
    with closing(document):
        _answer(answers, count=len(document))
        for line in requests:
            _limit_seconds(opening["seconds"])
            try:
                write_page(document, int(line) - 1, opening["dpi"], opening["max_pixels"], answers)
            except Exception as cause:  # pypdfium2 raises PdfiumError, ValueError, ctypes.ArgumentError and others
                _answer(answers, error=_kind(cause), message=str(cause))


def open_document(source: str | bytes) -> PdfDocument:
    """Open a document, by its path or its content, with its forms; PermissionError if it is encrypted."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(source)
        document.init_forms()  # else filled-in fields stay blank
    except pypdfium2.PdfiumError as cause:
        if pypdfium2.raw.FPDF_GetLastError() in (pypdfium2.raw.FPDF_ERR_PASSWORD, pypdfium2.raw.FPDF_ERR_SECURITY):
            raise PermissionError from cause
        raise
    return document


def write_page(document: PdfDocument, index: int, dpi: int, max_pixels: int, answers: IO[bytes]) -> None:
    """Render a page, and write its size and its pixels, RGB uint8 [height, width, 3]."""
    with closing(document[index]) as page:
        scale = min(dpi / POINTS_PER_INCH, _largest_scale(page, max_pixels))
        with closing(page.render(scale=scale, rev_byteorder=True)) as bitmap:
            pixels, row = memoryview(bitmap.buffer).cast("B"), bitmap.width * CHANNELS
            if bitmap.n_channels != CHANNELS:
                raise ValueError(f"its bitmap has {bitmap.n_channels} channels")
            _answer(answers, height=bitmap.height, width=bitmap.width)
            if bitmap.stride == row:
                answers.write(pixels[: bitmap.height * row])
            else:
                for start in range(0, bitmap.height * bitmap.stride, bitmap.stride):
                    answers.write(pixels[start : start + row])
            answers.flush()


def _largest_scale(page: PdfPage, max_pixels: int) -> float:
    """Scale at which a page has `max_pixels` pixels."""
    width, height = page.get_size()
    # The root of (width s + 1)(height s + 1) = max_pixels: the renderer rounds both sides up.
    both = width + height
    return 2 * (max_pixels - 1) / (both + math.sqrt(both**2 + 4 * width * height * (max_pixels - 1)))


def _kind(cause: Exception) -> str:
    if isinstance(cause, MemoryError):
        return "memory"
    return "encrypted" if isinstance(cause, PermissionError) else "damaged"


def _answer(answers: IO[bytes], **fields: Any) -> None:
    answers.write(json.dumps(fields).encode() + b"\n")
    answers.flush()


def _limit(name: str, soft: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    except (OSError, ValueError):  # some systems have no such limit
        return


def _limit_seconds(seconds: int) -> None:
    """Have the system end this process after some seconds of computation from now."""
    _limit("RLIMIT_CPU", math.ceil(time.process_time()) + seconds)


if __name__ == "__main__":
    # Ctrl-C reaches all processes of a terminal; the caller ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)
