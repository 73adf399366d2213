"""Pages of PDF files as images."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpack.errors import CapacityError, InputError, MissingExtraError
from embedpack.inputs import pdf_worker
from embedpack.inputs.limits import MAX_PIXELS, check_empty, open_file

# Limits of opening a document, and of a page.
MAX_SECONDS = 60
MAX_MEMORY = 1_500_000_000
# Signal of Unix for RLIMIT_CPU.
SIGXCPU = getattr(signal, "SIGXCPU", 0)
# Run with the caller's path of modules, and not with the folder of the program before it.
START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[2]); runpy.run_path(sys.argv[1], run_name='__main__')"
)


def pdf_pages(
    path: str | Path, *, dpi: int = 150, pages: Sequence[int] | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Render the pages of a PDF one at a time, with annotations and filled-in forms.

    They are rendered in a process of its own, with limits of time and memory. It starts with the first page, and ends
    after the last one or when the iterator is closed. Errors are raised when a page is taken, those of the file with
    the first page.

    Args:
        path: path of the file.
        dpi: pixels per inch; lower for a page that would have more than `MAX_PIXELS` pixels.
        pages: page numbers, counted from 1, e.g. range(1, 11); default: all pages.

    Yields:
        RGB uint8 [height, width, 3].

    Raises:
        InputError: the file cannot be read, is encrypted or damaged, or a page does not exist, cannot be rendered, or
            takes more than `MAX_SECONDS` or `MAX_MEMORY`.
        CapacityError: a page does not fit the memory.
        MissingExtraError: pypdfium2 is not installed.
    """
    if dpi < 1:
        raise InputError(f"dpi is {dpi}; it must be positive, 150 is usual")
    with closing(RenderedPdf(Path(path), PageSize(dpi))) as document:
        document.open()
        for number in range(1, document.count + 1) if pages is None else pages:
            yield document.page(number)


@dataclass(frozen=True)
class PageSize:
    """Pixels per inch of a page, and the most pixels that it has; None: `MAX_PIXELS`."""

    dpi: int = 150
    max_pixels: int | None = None


class RenderedPdf:
    """Process of `pdf_worker` for one document, by its path or its content.

    `open` and `page` raise the errors of `pdf_pages`. `stop` may be called by another thread.

    Attributes:
        count: number of its pages, once it is open.
    """

    def __init__(self, source: Path | bytes, size: PageSize) -> None:
        if find_spec("pypdfium2") is None:
            raise MissingExtraError("pdf", "pypdfium2")
        self.count = 0
        self._source = source
        self._size = size
        self._name = "the PDF" if isinstance(source, bytes) else str(source)
        self._check_empty()
        command = [sys.executable, "-c", START, pdf_worker.__file__, json.dumps(sys.path)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def open(self) -> None:
        """Open the document, once."""
        content = self._source if isinstance(self._source, bytes) else b""
        opening: pdf_worker.OpenRequest = {
            "path": None if isinstance(self._source, bytes) else str(self._source.absolute()),
            "size": len(content),
            "dpi": self._size.dpi,
            "max_pixels": self._size.max_pixels or MAX_PIXELS,
            "seconds": MAX_SECONDS,
            "memory": MAX_MEMORY,
        }
        with self._time_limit(self._name, "open it in a viewer and save it again"):
            answer = self._ask(opening, content)
        match answer.get("error"):
            case None:
                self.count = int(answer["count"])
            case "memory":
                raise CapacityError(f"{self._name} does not fit the memory; free some, or split the document")
            case "encrypted":
                raise InputError(f"{self._name} is encrypted; remove its password first, e.g. with qpdf --decrypt")
            case _:
                raise InputError(f"{self._name} is damaged or no PDF; open it in a viewer and save it again")

    def page(self, number: int) -> npt.NDArray[np.uint8]:
        """Pixels of a page, counted from 1, RGB uint8 [height, width, 3]."""
        if not 1 <= number <= self.count:
            raise InputError(f"{self._name}: there is no page {number}; the pages are 1 to {self.count}")
        name = f"{self._name}, page {number}"
        with self._time_limit(name, "leave this page out"):
            answer = self._ask(number)
            if answer.get("error") == "memory":
                raise CapacityError(f"{name} does not fit the memory; lower dpi")
            if "error" in answer:
                raise InputError(f"{name} cannot be rendered: {answer['message']}; leave this page out")
            pixels = np.empty((answer["height"], answer["width"], pdf_worker.CHANNELS), np.uint8)
            self._read_into(pixels.data.cast("B"))
        return pixels

    def stop(self) -> None:
        """End the process; `open` and `page` raise an error from now on."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait for its end."""
        self.stop()
        with suppress(BrokenPipeError), self._process:  # waits, and closes the pipes
            pass

    def _check_empty(self) -> None:
        if isinstance(self._source, bytes):
            check_empty(len(self._source), self._name)
        else:
            with open_file(self._source, self._name, "a PDF file") as stream:
                check_empty(os.fstat(stream.fileno()).st_size, self._name)

    def _ask(self, request: object, content: bytes = b"") -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n" + content)
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BrokenPipeError
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read_into(self, buffer: memoryview) -> None:
        assert isinstance(self._process.stdout, io.BufferedReader)
        # A buffered reader fills the buffer, unless the process has ended.
        if self._process.stdout.readinto(buffer) < len(buffer):
            raise BrokenPipeError

    @contextmanager
    def _time_limit(self, name: str, remedy: str) -> Iterator[None]:
        """Kill the process after MAX_SECONDS; an InputError instead of the pipe's error if it has ended."""
        timer = threading.Timer(MAX_SECONDS, self._process.kill)
        timer.start()
        start = time.monotonic()
        try:
            yield
        except BrokenPipeError as cause:
            code = self._process.wait()
            if time.monotonic() - start >= MAX_SECONDS or code == -SIGXCPU:
                raise InputError(f"{name} is not finished after {MAX_SECONDS} seconds; {remedy}") from cause
            raise InputError(
                f"{name} needs more than {MAX_MEMORY // 10**6} MB of memory, or crashes PDFium (exit code {code}); "
                f"{remedy}"
            ) from cause
        finally:
            timer.cancel()
