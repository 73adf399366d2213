"""embedpack: embeddings from quantized ONNX packs, without torch."""

from embedpack.embedder import Embedder
from embedpack.embeddings import Embeddings
from embedpack.errors import (
    AccuracyError,
    CapacityError,
    CheckpointError,
    EmbedpackError,
    InputError,
    MissingExtraError,
    PackError,
)
from embedpack.maxsim import maxsim
from embedpack.multi_embeddings import MultiEmbeddings
from embedpack.pdf import pdf_pages
from embedpack.search import Hits, search
from embedpack.similarity import similarity

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
    "maxsim",
    "pdf_pages",
    "search",
    "similarity",
]
