"""Pages of PDF files as images."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedpack.errors import CapacityError, InputError, MissingExtraError
from embedpack.inputs.limits import MAX_PIXELS, check_empty, open_file

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

POINTS_PER_INCH = 72
# PDFium must not run in two threads at a time. Reentrant: garbage collection may close an unfinished generator.
_PDFIUM = threading.RLock()


def pdf_pages(
    path: str | Path, *, dpi: int = 150, pages: Sequence[int] | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Render the pages of a PDF one at a time, with annotations and filled-in forms.

    Errors are raised when a page is taken, those of the file with the first page. The file stays open until the last
    page was taken or the iterator is closed.

    Args:
        path: path of the file.
        dpi: pixels per inch; lower for a page that would have more than `MAX_PIXELS` pixels.
        pages: page numbers, counted from 1, e.g. range(1, 11); default: all pages.

    Yields:
        RGB uint8 [height, width, 3].

    Raises:
        InputError: the file cannot be read, is encrypted or damaged, or a page does not exist or cannot be rendered.
        CapacityError: a page does not fit the memory.
        MissingExtraError: pypdfium2 is not installed.
    """
    if dpi < 1:
        raise InputError(f"dpi is {dpi}; it must be positive, 150 is usual")
    with _document(Path(path)) as document:
        with _PDFIUM:
            count = len(document)
        for number in range(1, count + 1) if pages is None else pages:
            if not 1 <= number <= count:
                raise InputError(f"{path}: there is no page {number}; the pages are 1 to {count}")
            yield _rendered(document, number, dpi, f"{path}, page {number}")


@contextmanager
def _document(path: Path) -> Iterator[PdfDocument]:
    try:
        import pypdfium2
    except ImportError as cause:
        raise MissingExtraError("pdf", "pypdfium2") from cause
    with open_file(path, str(path), "a PDF file") as stream:
        check_empty(os.fstat(stream.fileno()).st_size, str(path))
    with _PDFIUM:
        try:
            # Absolute: pypdfium2 would expand a leading ~ to the home folder.
            document = pypdfium2.PdfDocument(path.absolute())
            document.init_forms()  # else filled-in fields stay blank
        except pypdfium2.PdfiumError as cause:
            raise InputError(f"{path} {_reason()}") from cause
    try:
        yield document
    finally:
        with _PDFIUM:
            document.close()


def _reason() -> str:
    """Reason of PDFium's last error, and the remedy."""
    from pypdfium2 import raw

    if raw.FPDF_GetLastError() in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
        return "is encrypted; remove its password first, e.g. with qpdf --decrypt"
    return "is damaged or no PDF; open it in a viewer and save it again"


def _rendered(document: PdfDocument, number: int, dpi: int, name: str) -> npt.NDArray[np.uint8]:
    try:
        with _PDFIUM, closing(document[number - 1]) as page:
            scale = min(dpi / POINTS_PER_INCH, _largest_scale(page))
            with closing(page.render(scale=scale, rev_byteorder=True)) as bitmap:
                return np.ascontiguousarray(bitmap.to_numpy()).copy()
    except MemoryError as cause:
        raise CapacityError(f"{name} does not fit the memory; lower dpi") from cause
    except Exception as cause:  # pypdfium2 raises PdfiumError, ValueError, ctypes.ArgumentError and others
        raise InputError(f"{name} cannot be rendered: {cause}; leave it out with `pages`") from cause


def _largest_scale(page: PdfPage) -> float:
    """Scale at which a page has MAX_PIXELS pixels."""
    width, height = page.get_size()
    # The root of (width s + 1)(height s + 1) = MAX_PIXELS: the renderer rounds both sides up.
    both = width + height
    return 2 * (MAX_PIXELS - 1) / (both + math.sqrt(both**2 + 4 * width * height * (MAX_PIXELS - 1)))
