"""Errors and panics of the tokenizers library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embedpack.errors import CapacityError, PackError


@contextmanager
def no_panic() -> Iterator[None]:
    """Turn the PanicException of the tokenizers library, which is no Exception, into a RuntimeError."""
    try:
        yield
    except BaseException as cause:
        # pyo3 defines the class anew in every library and exports it from none.
        if type(cause).__name__ != "PanicException":
            raise
        raise RuntimeError(str(cause)) from cause


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
