"""Loaded pack: what `Embedder` and `Reranker` share from opening to closing."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, NoReturn, Self, TypeVar

from embedpack.errors import InputError
from embedpack.pack.folder import Pack
from embedpack.pack.variants import Device

Graphs = TypeVar("Graphs")


class LoadedPack(Generic[Graphs]):
    """A pack whose graphs are loaded until it is closed.

    Attributes:
        pack: the opened pack with its manifest.
        variant: name of the loaded variant, e.g. "retrieval-int8".
        device: device of its graphs.
    """

    pack: Pack
    variant: str
    device: Device
    _loaded: Graphs | None

    def close(self) -> None:
        """Return the memory of the graphs to the system; later calls raise InputError."""
        self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.pack.folder)!r}, variant={self.variant!r})"

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"this {name} cannot be pickled or copied, as its graphs are loaded in this process; "
            f"open the pack in each process: {name}({str(self.pack.folder)!r})"
        )

    @property
    def _graphs(self) -> Graphs:
        if self._loaded is None:
            raise InputError(f"{self.pack.folder}: this {type(self).__name__} is closed; open the pack again")
        return self._loaded
