"""Templates: a sequence of token ids, texts and slots, as pack.json has it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

SlotName = Literal["query", "document", "instruction", "count", "index"]
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    """Characters of the model; special tokens are not parsed in them."""

    text: str


class IdsPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ids"):
    """Token ids, mostly of special tokens."""

    ids: tuple[TokenId, ...]


class SlotPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="slot"):
    """Place of a text of the caller; special tokens are not parsed in it."""

    slot: SlotName


Part = TextPart | IdsPart | SlotPart
