"""PDF pages: files written by hand, valid and hostile."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest

from embedpack import CapacityError, InputError
from embedpack.inputs import pdf_worker
from embedpack.inputs.limits import MAX_PIXELS
from embedpack.inputs.pdf import PageSize, RenderedPdf, pdf_pages
from tests.helpers.pdfs import RED, page_tree, page_without_end, pdf

BLUE = "0 0 1 rg 0 0 72 36 re f"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def apply(content: bytes) -> Path:
        path = tmp_path / "paper.pdf"
        path.write_bytes(content)
        return path

    return apply


def test_pages_are_rendered_in_rgb(write: Callable[[bytes], Path]) -> None:
    first, second = pdf_pages(write(pdf(page_tree([RED, BLUE]))), dpi=72)
    assert first.dtype == np.uint8
    assert first.shape == (36, 72, 3)
    assert (first == [255, 0, 0]).all()
    assert (second == [0, 0, 255]).all()
    assert first.flags.owndata


def test_first_line_is_the_top_and_paper_is_white(write: Callable[[bytes], Path]) -> None:
    (page,) = pdf_pages(str(write(pdf(page_tree(["0 1 0 rg 0 18 72 18 re f"])))), dpi=144)
    assert page.shape == (72, 144, 3)
    assert (page[:35] == [0, 255, 0]).all()
    assert (page[37:] == 255).all()


def test_default_resolution_is_150_per_inch(write: Callable[[bytes], Path]) -> None:
    (page,) = pdf_pages(write(pdf(page_tree([RED]))))
    assert page.shape == (75, 150, 3)


def test_width_that_is_no_multiple_of_four(write: Callable[[bytes], Path]) -> None:
    (page,) = pdf_pages(write(pdf(page_tree([RED], box="0 0 71 35"))), dpi=72)
    assert page.shape == (35, 71, 3)
    assert (page == [255, 0, 0]).all()


def test_rotated_page(write: Callable[[bytes], Path]) -> None:
    objects = page_tree(["0 1 0 rg 0 0 18 36 re f"])
    objects[2] = objects[2].replace("/Contents", "/Rotate 90 /Contents")
    (page,) = pdf_pages(write(pdf(objects)), dpi=72)
    assert page.shape == (72, 36, 3)
    assert (page[:18] == [0, 255, 0]).all()
    assert (page[18:] == 255).all()


def test_filled_in_fields_are_drawn(write: Callable[[bytes], Path]) -> None:
    objects = page_tree([""])
    objects[0] = "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [5 0 R] >> >>"
    objects[2] = objects[2].replace("/Contents", "/Annots [5 0 R] /Contents")
    objects += [
        "<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /V (x) /F 4 /Rect [0 0 72 36] /P 3 0 R /AP << /N 6 0 R >> >>",
        f"<< /Type /XObject /Subtype /Form /BBox [0 0 72 36] /Length {len(BLUE)} >>\nstream\n{BLUE}\nendstream",
    ]
    (page,) = pdf_pages(write(pdf(objects)), dpi=72)
    red, blue = page[18, 36, 0], page[18, 36, 2]
    assert blue > 150
    assert red < 100


@pytest.mark.parametrize("pages", [[2], range(2, 3), (2,)])
def test_chosen_pages(write: Callable[[bytes], Path], pages: Sequence[int]) -> None:
    (page,) = pdf_pages(write(pdf(page_tree([RED, BLUE, RED]))), dpi=72, pages=pages)
    assert (page == [0, 0, 255]).all()


def test_content_has_the_pages_of_its_file(write: Callable[[bytes], Path]) -> None:
    # Larger than the buffer of a pipe.
    content = pdf(page_tree(["0 1 0 rg 0 18 72 18 re f", BLUE + " " * 200_000]))
    with closing(RenderedPdf(content, PageSize())) as document:
        document.open()
        assert document.count == 2
        for number, page in enumerate(pdf_pages(write(content)), 1):
            assert (document.page(number) == page).all()
    with closing(RenderedPdf(content, PageSize(max_pixels=500))) as document:
        document.open()
        assert 450 < document.page(1).size / 3 <= 500


@pytest.mark.parametrize("content", [b"", b"hello", pdf(page_tree([RED]))[:120], bytes(200_000)])
def test_content_that_is_no_pdf(content: bytes) -> None:
    with (
        pytest.raises(InputError, match=r"^the PDF is (empty|damaged or no PDF)"),
        closing(RenderedPdf(content, PageSize())) as document,
    ):
        document.open()


def test_another_thread_stops_a_page_without_end() -> None:
    with closing(RenderedPdf(page_without_end(), PageSize())) as document:
        document.open()
        threading.Timer(0.2, document.stop).start()
        with pytest.raises(InputError, match="the PDF, page 2 needs more"):
            document.page(2)


@pytest.mark.parametrize("number", [0, 3, -1])
def test_page_that_does_not_exist(write: Callable[[bytes], Path], number: int) -> None:
    path = write(pdf(page_tree([RED, BLUE])))
    with pytest.raises(InputError) as caught:
        list(pdf_pages(path, pages=[number]))
    assert str(caught.value) == f"{path}: there is no page {number}; the pages are 1 to 2"


@pytest.mark.parametrize("dpi", [0, -150])
def test_resolution_must_be_positive(write: Callable[[bytes], Path], dpi: int) -> None:
    with pytest.raises(InputError, match=f"dpi is {dpi}; it must be positive"):
        list(pdf_pages(write(pdf(page_tree([RED]))), dpi=dpi))


def test_every_page_is_closed_before_the_next(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[pypdfium2.PdfPage] = []
    get_page = pypdfium2.PdfDocument.get_page

    def spy(document: pypdfium2.PdfDocument, index: int) -> pypdfium2.PdfPage:
        opened.append(get_page(document, index))
        return opened[-1]

    monkeypatch.setattr(pypdfium2.PdfDocument, "get_page", spy)
    with closing(pdf_worker.open_document(str(write(pdf(page_tree([RED] * 100)))))) as document:
        for number in range(100):
            pdf_worker.write_page(document, number, 72, MAX_PIXELS, io.BytesIO())
            assert len(opened) == number + 1
            assert all(page.raw is None for page in opened)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Processes that were started to render."""
    started: list[subprocess.Popen[bytes]] = []

    class Spy(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr("embedpack.inputs.pdf.subprocess.Popen", Spy)
    return started


def test_document_has_one_process_that_ends_with_the_iterator(
    write: Callable[[bytes], Path], processes: list[subprocess.Popen[bytes]]
) -> None:
    path = write(pdf(page_tree([RED] * 3)))
    pages = pdf_pages(path)
    assert not processes
    next(pages)
    next(pages)
    assert [process.poll() for process in processes] == [None]
    del pages
    assert processes[0].returncode is not None
    for stream in (processes[0].stdin, processes[0].stdout):
        assert stream is not None
        assert stream.closed
    assert len(list(pdf_pages(path))) == 3
    assert len(processes) == 2
    assert processes[1].returncode is not None


@pytest.mark.skipif(sys.platform == "win32", reason="the limits are those of Unix")
@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_SECONDS", 1, "is not finished after 1 seconds"),
        ("MAX_MEMORY", 500_000_000, "needs more than 500 MB of memory, or crashes PDFium (exit code "),
    ],
)
def test_page_without_end(
    write: Callable[[bytes], Path],
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    reason: str,
) -> None:
    monkeypatch.setattr(f"embedpack.inputs.pdf.{limit}", value)
    path = write(page_without_end())
    pages = pdf_pages(path, dpi=72)
    next(pages)
    with pytest.raises(InputError) as caught:
        next(pages)
    assert str(caught.value).startswith(f"{path}, page 2 {reason}")
    assert str(caught.value).endswith("; leave this page out")
    assert processes[0].returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes the way Linux shows them")
def test_ctrl_c_ends_a_page_without_end(write: Callable[[bytes], Path]) -> None:
    code = "import sys, embedpack; print(flush=True); list(embedpack.pdf_pages(sys.argv[1], pages=[2]))"
    path = write(page_without_end())
    caller = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    )
    assert caller.stdout is not None
    caller.stdout.readline()
    while not (children := Path(f"/proc/{caller.pid}/task/{caller.pid}/children").read_text().split()):
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(caller.pid, signal.SIGINT)
    _, errors = caller.communicate(timeout=60)
    assert errors.endswith(b"KeyboardInterrupt\n")
    assert not Path(f"/proc/{children[0]}").exists()


def test_huge_page_is_rendered_smaller(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.inputs.pdf.MAX_PIXELS", 20_000)
    path = write(pdf(page_tree([RED], box="0 0 14400 7200")))
    (page,) = pdf_pages(path, dpi=72)
    assert 19_000 < page.shape[0] * page.shape[1] <= 20_000
    assert page.shape[1] / page.shape[0] == pytest.approx(2, rel=0.02)


def test_page_of_a_hair_is_rendered_smaller(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.inputs.pdf.MAX_PIXELS", 20_000)
    (page,) = pdf_pages(write(pdf(page_tree([RED], box="0 0 0.5 1000000"))))
    assert page.shape[0] * page.shape[1] <= 20_000
    assert MAX_PIXELS == 100_000_000


@pytest.mark.parametrize("handler", ["/Filter /Standard /V 1 /R 2 /P -4", "/Filter /Unknown /V 9 /R 9 /P -4"])
def test_encrypted(write: Callable[[bytes], Path], handler: str) -> None:
    key = "<" + "5a" * 32 + ">"
    path = write(pdf(page_tree([RED]), f"/ID [<00> <00>] /Encrypt << {handler} /O {key} /U {key} >>"))
    with pytest.raises(InputError) as caught:
        list(pdf_pages(path))
    assert str(caught.value) == f"{path} is encrypted; remove its password first, e.g. with qpdf --decrypt"


@pytest.mark.parametrize(
    "content", [b"%PDF-1.7\n", b"%PDF-1.7\n" + bytes(5000), b"hello", b"\x89PNG\r\n\x1a\n", pdf(page_tree([RED]))[:120]]
)
def test_damaged_or_no_pdf(write: Callable[[bytes], Path], content: bytes) -> None:
    path = write(content)
    with pytest.raises(InputError) as caught:
        list(pdf_pages(path))
    assert str(caught.value) == f"{path} is damaged or no PDF; open it in a viewer and save it again"


def test_no_pages(write: Callable[[bytes], Path]) -> None:
    path = write(pdf(page_tree([])))
    with pytest.raises(InputError, match="is damaged or no PDF"):
        list(pdf_pages(path))


def test_empty_file(write: Callable[[bytes], Path]) -> None:
    path = write(b"")
    with pytest.raises(InputError) as caught:
        list(pdf_pages(path))
    assert str(caught.value) == f"{path} is empty (0 bytes); leave it out, or write it again"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        list(pdf_pages(tmp_path / "none.pdf"))
    path = tmp_path / "none.pdf"
    assert (
        str(caught.value)
        == f"{path} cannot be read: No such file or directory; check the path, its permissions and the disk"
    )
    with pytest.raises(InputError, match="is a folder or a device"):
        list(pdf_pages(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        list(pdf_pages("a\0b.pdf"))


def test_broken_page_is_named_and_the_others_are_rendered(write: Callable[[bytes], Path]) -> None:
    objects = page_tree([RED, BLUE, RED])
    objects[4] = "(no page)"
    path = write(pdf(objects))
    pages = pdf_pages(path, dpi=72)
    next(pages)
    with pytest.raises(InputError) as caught:
        next(pages)
    assert str(caught.value).startswith(f"{path}, page 2 cannot be rendered: ")
    assert len(list(pdf_pages(path, pages=[1, 3]))) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="the limits are those of Unix")
def test_page_that_does_not_fit_the_memory(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpack.inputs.pdf.MAX_MEMORY", 270_000_000)
    path = write(pdf(page_tree([RED], box="0 0 14400 14400")))
    with pytest.raises(CapacityError) as caught:
        list(pdf_pages(path))
    assert str(caught.value) == f"{path}, page 1 does not fit the memory; lower dpi"


def test_threads_do_not_disturb_each_other(write: Callable[[bytes], Path]) -> None:
    path = write(pdf(page_tree([RED, BLUE] * 20)))
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(sum(bool(page.any()) for page in pdf_pages(path, dpi=72))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [40] * 4


def test_without_pypdfium2() -> None:
    code = """
import json, sys
import embedpack.inputs.pdf
loaded = [name for name in ("pypdfium2", "PIL") if name in sys.modules]
sys.modules["pypdfium2"] = None
try:
    next(embedpack.inputs.pdf.pdf_pages("paper.pdf"))
except embedpack.MissingExtraError as error:
    print(json.dumps([loaded, str(error)]))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    loaded, message = json.loads(output)
    assert loaded == []
    assert message == "this needs 'pypdfium2', which is not installed. Run: pip install 'embedpack[pdf]'"
