"""Inputs of a request: texts, images in base64, or a PDF."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field

from embedpack.inputs.items import Image, Item, Text, is_blank, text_problem
from embedpack.server.request_errors import invalid
from embedpack.server.schemas import Inputs, Part
from embedpack.server.settings import Limits

# A client that addresses images by plain strings sends data URIs.
DATA_URI = "data:image/"
# Names of one field in the bodies of several clients.
IMAGE_FIELDS = ("image", "bytes", "url")
URLS = ("http://", "https://")


@dataclass(frozen=True)
class RequestItems:
    """Checked inputs: texts and images, or the content of a PDF, whose pages are the inputs.

    `addresses`: those of images that are to be fetched, by the number of their item, which is empty before.
    """

    items: list[Item] = field(default_factory=list)
    addresses: dict[int, str] = field(default_factory=dict)
    pdf: bytes | None = None

    @property
    def images(self) -> bool:
        """True if an input is an image, or will be."""
        return self.pdf is not None or any(isinstance(item, Image) for item in self.items)


def read_items(inputs: Inputs, limits: Limits, *, data_uris: bool, urls: bool) -> RequestItems:
    """Check inputs; RequestError if one cannot be used, or there are too many.

    `data_uris`: strings that are data URIs of images are images; `urls`: images may be at addresses.
    """
    parts = inputs if isinstance(inputs, list) else [inputs]
    _check_number(parts, limits)
    for number, part in enumerate(parts):
        if isinstance(part, Part) and part.pdf is not None:
            return RequestItems(pdf=_pdf(part, number, len(parts)))
    addresses = _addresses(parts) if urls else {}
    items = [
        Image(number, b"") if number in addresses else _item(part, number, data_uris=data_uris)
        for number, part in enumerate(parts)
    ]
    images = sum(isinstance(item, Image) for item in items)
    if images > limits.images:
        raise invalid("input", f"{images} images; at most {limits.images} are taken, send several requests")
    return RequestItems(items, addresses)


def _addresses(parts: Sequence[object]) -> dict[int, str]:
    """Addresses of images, by the number of their input."""
    named = {number: _single(part, number) for number, part in enumerate(parts) if isinstance(part, Part)}
    return {
        number: content
        for number, fields in named.items()
        for name, content in fields.items()
        if name in IMAGE_FIELDS and content.startswith(URLS)
    }


def _check_number(parts: Sequence[object], limits: Limits) -> None:
    if not parts:
        raise invalid("input", "the list is empty; pass at least one text")
    if len(parts) > limits.items:
        raise invalid("input", f"{len(parts)} inputs; at most {limits.items} are taken, send several requests")


def _pdf(part: Part, number: int, parts: int) -> bytes:
    if parts > 1:
        raise invalid(f"input[{number}]", "the pages of a PDF are all inputs of a request; send each PDF by itself")
    ((name, content),) = _single(part, number).items()
    return decoded(content, f"input[{number}].{name}", "PDF")


def _item(part: str | Part | int | list[int], number: int, *, data_uris: bool) -> Item:
    field = f"input[{number}]"
    if isinstance(part, int | list):
        message = "token ids are not taken, as each model has its own; pass the text"
        raise invalid(field, f"{message} (of OpenAIEmbeddings: check_embedding_ctx_length=False)")
    if isinstance(part, str):
        is_uri = data_uris and part.startswith(DATA_URI)
        return Image(number, decoded(part, field, "image")) if is_uri else _text(part, number)
    ((name, content),) = _single(part, number).items()
    return _text(content, number) if name == "text" else Image(number, decoded(content, f"{field}.{name}", "image"))


def _single(part: Part, number: int) -> dict[str, str]:
    """The only field of an input, by its name."""
    named = {"text": part.text, "pdf": part.pdf, **{name: getattr(part, name) for name in IMAGE_FIELDS}}
    given = {name: value for name, value in named.items() if value is not None}
    if len(given) != 1:
        raise invalid(f"input[{number}]", f"pass one of text, image and pdf, not {len(given)}")
    return given


def _text(text: str, number: int) -> Text:
    if is_blank(text):
        raise invalid(f"input[{number}]", "the text is empty; leave it out")
    problem = text_problem(text)
    if problem is not None:
        raise invalid(f"input[{number}]", f"the text {problem}")
    return Text(number, text)


def decoded(content: str, field: str, kind: str) -> bytes:
    """Bytes of an image or a PDF in base64; nothing is fetched."""
    if content.startswith(URLS):
        raise invalid(field, f"this server fetches nothing from addresses; pass the {kind} in base64")
    if content.startswith("data:"):
        head, comma, content = content.partition(",")
        if not comma or not head.endswith(";base64"):
            raise invalid(field, "a data URI is: data:image/png;base64,... or data:application/pdf;base64,...")
    try:
        return binascii.a2b_base64(content, strict_mode=True)
    except (binascii.Error, ValueError) as cause:  # ValueError: not ASCII
        raise invalid(field, f"the {kind} is not base64: {cause}") from cause
