"""embedpack: embeddings from quantized ONNX packs, without torch."""

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
    "maxsim",
    "pdf_pages",
    "search",
    "similarity",
]
