"""The exceptions that embedpack raises deliberately.

EmbedpackError
├── PackError            a pack is broken, has an unknown format, or differs from its manifest
├── CheckpointError      a checkpoint or an adapter cannot be exported
├── AccuracyError        the vectors of an export differ too much from the model's
├── InputError           an input, an option or a saved file of the caller cannot be used
│   ├── ItemError        one of several inputs cannot be used; the others can
│   │   └── ChunkError   one chunk of a document cannot be used
│   └── OptionError      a value of an option is none of those that are allowed
├── CapacityError        the work does not fit the disk or the memory
└── MissingExtraError    an optional part of embedpack is not installed

Every message has the value, its place and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmbedpackError(Exception):
    """Base class: catch it to catch everything that embedpack raises deliberately.

    The message is one line: line breaks in names and values that it quotes are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.replace("\n", r"\n"))


class PackError(EmbedpackError):
    """A pack is broken, has an unknown format version, or differs from its manifest."""


class CheckpointError(EmbedpackError):
    """A checkpoint or an adapter is incomplete or of an unknown kind, or the two do not fit together."""


class AccuracyError(EmbedpackError):
    """An export loses more than its budget allows compared with the model, or is another model.

    The message has a line for each failure.
    """

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


class InputError(EmbedpackError):
    """An input, an option or a saved file of the caller cannot be used."""


class ItemError(InputError):
    """One of several inputs cannot be used; the others can.

    Attributes:
        kind: "text", "image" or "document".
        number: position of the input in the call, counted from 0.
        problem: reason and remedy, without the input's name.
    """

    def __init__(self, kind: str, number: int, problem: str) -> None:
        super().__init__(f"{kind} {number} {problem}")
        self.kind = kind
        self.number = number
        self.problem = problem


class ChunkError(ItemError):
    """One chunk of a document cannot be used.

    Attributes:
        chunk: position of the chunk in the document, counted from 0.
        of_chunk: reason and remedy, without the names of chunk and document.
    """

    def __init__(self, document: int, chunk: int, problem: str) -> None:
        super().__init__("document", document, f"cannot be used: its chunk {chunk} {problem}")
        self.chunk = chunk
        self.of_chunk = problem


class OptionError(InputError):
    """A value of an option is none of those that are allowed, or does nothing beside the other options."""


class CapacityError(EmbedpackError):
    """The work does not fit the disk or the memory."""


class MissingExtraError(EmbedpackError):
    """An optional part of embedpack is not installed; the message has the command that installs it."""

    def __init__(self, extra: str, *missing: str) -> None:
        """Take the names of the extras, separated by commas, and of the packages that are missing."""
        names = ", ".join(map(repr, missing))
        are = "is" if len(missing) == 1 else "are"
        super().__init__(f"this needs {names}, which {are} not installed. Run: pip install 'embedpack[{extra}]'")


def failed(action: str, cause: Exception) -> str:
    """Part of an error message for a file that cannot be read or written: the system's reason, and the remedy."""
    reason = getattr(cause, "strerror", None) or cause
    return f"cannot be {action}: {reason}; check the path, its permissions and the disk"


def unknown(what: str, name: object, known: Iterable[object]) -> str:
    """Error message for a name that is not among the known ones, with the most similar of them."""
    names = [str(each) for each in known]
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}; known: {', '.join(names) or 'none'}{hint}"
