"""embedpack: embeddings from quantized ONNX packs, without torch.

Names are imported at their first use, so that the command line starts at once and an early Ctrl-C is no traceback.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from embedpack.embedder import Embedder
    from embedpack.errors import (
        AccuracyError,
        CapacityError,
        CheckpointError,
        EmbedpackError,
        InputError,
        MissingExtraError,
        PackError,
    )
    from embedpack.inputs.pdf import pdf_pages
    from embedpack.reranker import Ranked, Reranker
    from embedpack.scoring.cosine import similarity
    from embedpack.scoring.exact_search import Hits, search
    from embedpack.scoring.late_interaction import maxsim
    from embedpack.vectors.embeddings import Embeddings
    from embedpack.vectors.multi_embeddings import MultiEmbeddings

__version__ = "0.1.0"

__all__ = [
    "AccuracyError",
    "CapacityError",
    "CheckpointError",
    "Embedder",
    "Embeddings",
    "EmbedpackError",
    "Hits",
    "InputError",
    "MissingExtraError",
    "MultiEmbeddings",
    "PackError",
    "Ranked",
    "Reranker",
    "maxsim",
    "pdf_pages",
    "search",
    "similarity",
]
_MODULES = {
    "Embedder": "embedder",
    "Embeddings": "vectors.embeddings",
    "Hits": "scoring.exact_search",
    "MultiEmbeddings": "vectors.multi_embeddings",
    "Ranked": "reranker",
    "Reranker": "reranker",
    "maxsim": "scoring.late_interaction",
    "pdf_pages": "inputs.pdf",
    "search": "scoring.exact_search",
    "similarity": "scoring.cosine",
}


def __getattr__(name: str) -> typing.Any:
    """Import a public name; AttributeError for any other."""
    if name not in __all__:
        raise AttributeError(f"module 'embedpack' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"embedpack.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
