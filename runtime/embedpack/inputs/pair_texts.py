"""Query and documents of a call that scores them: checked before anything is tokenized."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from embedpack.errors import InputError, ItemError
from embedpack.inputs.images import ImageSource, is_image
from embedpack.inputs.items import is_blank, text_problem

Document: TypeAlias = "str | ImageSource"

NO_DOCUMENTS = "nothing to score: the list of documents is empty"


def check_query(query: object, name: str = "query") -> str:
    """The query, or another text that all documents share; InputError unless it is a text that can be tokenized."""
    if is_image(query):
        raise InputError(f"the {name} is an image; this pack scores texts only")
    if not isinstance(query, str):
        raise InputError(f"the {name} is of type {type(query).__name__}; it must be one text, a str")
    problem = "is empty; pass a text" if is_blank(query) else text_problem(query)
    if problem is not None:
        raise InputError(f"the {name} {problem}")
    return query


def check_documents(documents: object, *, images: bool = False) -> list[Document]:
    """List of the documents: texts, and with `images` those too.

    Raises:
        InputError: there are none, they are no list, or one of them is of another type.
        ItemError: a document is empty, or cannot be tokenized.
    """
    single = isinstance(documents, str) or is_image(documents)
    if single or not isinstance(documents, Iterable) or isinstance(documents, (Mapping, bytes, io.IOBase)):
        raise InputError(f"documents is of type {type(documents).__name__}; pass a list of texts")
    checked = [_checked(document, number, images=images) for number, document in enumerate(documents)]
    if not checked:
        raise InputError(NO_DOCUMENTS)
    return checked


@contextmanager
def errors_of_query() -> Iterator[None]:
    """Name the query in errors of the tokenizer."""
    try:
        yield
    except ItemError as cause:
        raise InputError(f"the query {cause.problem}") from cause


@contextmanager
def errors_of_documents(first: int) -> Iterator[None]:
    """Name documents in errors of the tokenizer, by their numbers from `first` on."""
    try:
        yield
    except ItemError as cause:
        raise ItemError("document", first + cause.number, cause.problem) from cause


def _checked(document: object, number: int, *, images: bool) -> Document:
    if is_image(document):
        if images:
            return document
        raise InputError(f"document {number} is an image; this pack scores texts only")
    if not isinstance(document, str):
        raise InputError(f"document {number} is of type {type(document).__name__}; a document must be a str")
    problem = "is empty; leave it out" if is_blank(document) else text_problem(document)
    if problem is not None:
        raise ItemError("document", number, problem)
    return document
