"""Every error that embedpack raises on purpose.

EmbedpackError
├── PackError            a pack is broken, of an unknown format, or not what its manifest says
├── CheckpointError      a checkpoint or an adapter cannot be exported
├── AccuracyError        an export gives other vectors than it may
├── InputError           a text, an option or a saved file of the caller is not usable
├── CapacityError        the work does not fit the disk or the memory
└── MissingExtraError    an optional part of embedpack is not installed

Every message says what was found, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmbedpackError(Exception):
    """Root of the tree: catch this to catch everything that embedpack raises on purpose."""


class PackError(EmbedpackError):
    """A pack is broken, of an unknown format version, or does not hold what its manifest says."""


class CheckpointError(EmbedpackError):
    """A checkpoint or an adapter is incomplete, of an unknown kind, or the two do not fit."""


class AccuracyError(EmbedpackError):
    """What was exported is further from the model than its budget allows, or is another model."""


class InputError(EmbedpackError):
    """What the caller passed (a text, an option, a saved file) cannot be used."""


class CapacityError(EmbedpackError):
    """The work does not fit the disk or the memory."""


class MissingExtraError(EmbedpackError):
    """An optional part of embedpack is needed; the message holds the command that installs it."""

    def __init__(self, extra: str, missing: str) -> None:
        super().__init__(f"this needs {missing!r}, which is not installed. Run: pip install 'embedpack[{extra}]'")


def unknown(what: str, found: object, known: Iterable[object]) -> str:
    """Message for a name that is not among the known ones; names the nearest of them."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(found), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {found!r}; known: {', '.join(names) or 'none'}{hint}"
