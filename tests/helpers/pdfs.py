"""PDFs written by hand."""

from __future__ import annotations

from collections.abc import Sequence

RED = "1 0 0 rg 0 0 72 36 re f"


def pdf(objects: Sequence[str], trailer: str = "") -> bytes:
    """A PDF of these objects, numbered from 1; the first one is the catalog."""
    content, offsets = b"%PDF-1.7\n", []
    for number, text in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Root 1 0 R /Size {len(objects) + 1} "
    return content + f"{end}{trailer} >>\nstartxref\n{len(content)}\n%%EOF\n".encode()


def page_tree(contents: Sequence[str], box: str = "0 0 72 36") -> list[str]:
    """Objects of a document with a page for each content."""
    kids = " ".join(f"{3 + 2 * index} 0 R" for index in range(len(contents)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>"]
    for index, text in enumerate(contents):
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents {4 + 2 * index} 0 R >>")
        objects.append(f"<< /Length {len(text)} >>\nstream\n{text}\nendstream")
    return objects


def page_without_end() -> bytes:
    """A document whose second page has a form that draws itself twice."""
    objects = page_tree([RED, "/A Do"])
    resources = "/Resources << /XObject << /A 7 0 R >> >>"
    objects[4] = objects[4].replace("/Contents", f"{resources} /Contents")
    form = f"<< /Type /XObject /Subtype /Form /BBox [0 0 72 36] {resources} /Length 11 >>"
    objects.append(f"{form}\nstream\n/A Do /A Do\nendstream")
    return pdf(objects)
