"""Errors and panics of the tokenizers library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from embedpack.errors import CapacityError, PackError


class no_panic:  # noqa: N801 - reads as a statement, like contextlib.suppress
    """Turn the PanicException of the tokenizers library, which is no Exception, into a RuntimeError."""

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # pyo3 defines the class anew in every library and exports it from none.
        if kind is not None and kind.__name__ == "PanicException":
            raise RuntimeError(str(error)) from error


@contextmanager
def load_errors() -> Iterator[None]:
    """Turn errors and panics of the tokenizers library into a PackError."""
    try:
        with no_panic():
            yield
    except MemoryError as cause:
        raise CapacityError("tokenizer.json: does not fit the memory; free some") from cause
    except Exception as cause:  # tokenizers raises bare Exception
        raise PackError(f"tokenizer.json: the tokenizers library cannot read it: {cause}; copy it again") from cause
