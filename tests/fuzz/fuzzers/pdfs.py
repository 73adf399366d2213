"""Generated and changed PDF files: recursive forms, patterns, large boxes, contents of random operators."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from embedpack.inputs import pdf
from embedpack.inputs.limits import MAX_PIXELS
from tests.fuzz.mutations import NUMBERS, mutate_bytes
from tests.fuzz.outcome import Attempt, Fuzzer, check

# Instead of 60 seconds a page, so that many files can be tried.
SECONDS = 3
OPERATORS = (
    "q", "Q", "1 0 0 rg", "0 0 1 RG", "0 0 72 36 re f", "0 0 m 72 36 l S", "/F Do", "/G Do", "/P scn", "/Pattern cs",
    "BT /T 12 Tf (a) Tj ET", "2 0 0 2 0 0 cm", "1e38 0 0 1e38 0 0 cm", "W n", "BI /W 9 /H 9 /BPC 8 /CS /G ID x EI",
)  # fmt: skip
BOXES = ("0 0 72 36", "0 0 1 1", "0 0 99999999 99999999", "0 0 0 0", "-5 -5 5 5", "0 0 nan 1e40", "72 36 0 0")


def prepare(folder: Path) -> Attempt:
    """Tries with one file each, of which the first page is rendered."""
    pdf.MAX_SECONDS = SECONDS
    path = folder / "paper.pdf"

    def attempt(rng: random.Random) -> None:
        content = document(rng)
        path.write_bytes(mutate_bytes(content, rng) if rng.random() < 0.5 else content)
        for page in pdf.pdf_pages(path, dpi=rng.choice((20, 150)), pages=[1]):
            check(page.dtype == np.uint8 and page.ndim == 3 and page.shape[2] == 3, f"{page.dtype} {page.shape}")
            check(0 < page.shape[0] * page.shape[1] <= MAX_PIXELS, f"a page of {page.shape}")

    return attempt


def document(rng: random.Random) -> bytes:
    """A document of a page, two forms that may draw each other, and a pattern."""
    resources = "<< /XObject << /F 5 0 R /G 6 0 R >> /Pattern << /P 7 0 R >> /Font << /T 8 0 R >> >>"
    box, count = rng.choice(BOXES), rng.choice((1, 1, 1, *NUMBERS))
    page = f"/Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents 4 0 R /Resources {resources}"
    form = f"/Type /XObject /Subtype /Form /BBox [0 0 72 36] /Resources {resources}"
    tiling = f"/PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 9 9] /XStep {rng.choice(NUMBERS)} /YStep 0.001"
    return assembled(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            f"<< /Type /Pages /Kids [3 0 R] /Count {count} >>",
            f"<< {page} >>",
            stream("", operators(rng)),
            stream(form, operators(rng)),
            stream(form, operators(rng)),
            stream(f"{tiling} /Resources {resources}", operators(rng)),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
    )


def operators(rng: random.Random) -> str:
    """Content of a stream."""
    return "\n".join(rng.choice(OPERATORS) for _ in range(rng.randint(0, 12)))


def stream(entries: str, content: str) -> str:
    """Text of a stream object."""
    return f"<< {entries} /Length {len(content)} >>\nstream\n{content}\nendstream"


def assembled(objects: list[str]) -> bytes:
    """A file of these objects, numbered from 1; the first one is the catalog."""
    content, offsets = b"%PDF-1.7\n", []
    for number, text in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer\n<< /Root 1 0 R /Size {len(objects) + 1} >>\nstartxref\n{len(content)}\n%%EOF\n"
    return content + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode()


FUZZER = Fuzzer("PDFs", 400, prepare)
