"""Base class of the parts of a manifest, and the numbers and digests in it with their ranges."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

WeightsFormat = Literal["fp32", "fp16", "int8", "int4"]
AdapterMode = Literal["merged", "switchable"]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=20)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
TokenCount = Annotated[int, msgspec.Meta(ge=1, le=1_048_576)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all parts of the manifest: immutable; an unknown field is an error."""
