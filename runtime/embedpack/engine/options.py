"""Options of a run of the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedpack.errors import InputError, unknown

OnLongText = Literal["truncate", "error"]


@dataclass(frozen=True)
class EncodeOptions:
    """Options of a run of the encoder: those of a call, with the prompt and the adapter of a task.

    `adapter` is a task of a switchable variant. InputError for a value that no pack accepts.
    """

    prompt: str = ""
    adapter: str | None = None
    on_long: OnLongText = "truncate"
    max_pixels: int | None = None
    pool_factor: int = 1

    def __post_init__(self) -> None:
        if self.on_long not in ("truncate", "error"):
            raise InputError(unknown("on_long", self.on_long, ("truncate", "error")))
        if self.max_pixels is not None and (not isinstance(self.max_pixels, int) or self.max_pixels < 1):
            raise InputError(f"max_pixels is {self.max_pixels!r}; it must be a whole number of at least 1")
        if not isinstance(self.pool_factor, int) or self.pool_factor < 1:
            raise InputError(f"pool_factor is {self.pool_factor!r}; it must be a whole number of at least 1")
