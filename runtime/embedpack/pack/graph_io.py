"""Names, dtypes and shapes of the inputs and outputs of a pack's graphs.

Inputs of the text graph. Rows are padded on the right. The last four exist only if the pack takes images;
`image_embeds` and `image_index` have no rows in a batch without images.

    name            dtype    shape                   meaning
    input_ids       int64    [batch, sequence]       token ids
    attention_mask  int64    [batch, sequence]       1 for tokens, 0 for padding
    position_ids    int64    [3, batch, sequence]    time, row and column of each token (M-RoPE)
    pool_mask       int64    [batch, sequence]       1 for the tokens that are pooled to the single vector
    image_embeds    float32  [image_tokens, hidden]  outputs of the vision graph for all images of the batch, in order
    image_index     int64    [image_tokens, 2]       row and column of `input_ids` that each of them replaces

Input of a graph that scores pairs of a query and a document, if the manifest has token types.

    name            dtype    shape                   meaning
    token_type_ids  int64    [batch, sequence]       1 from the document on, 0 before it and for padding

Optional inputs of the text graph of a switchable variant; without them the graph is that of the backbone.

    name                       dtype    shape            meaning
    MODULE.lora_A              float16  [inputs, rank]   first factor of the adapter of a linear layer
    MODULE.lora_B              float16  [rank, outputs]  second factor
    sentence_embedding_center  float32  [dimensions]     center of the binary codes of single vectors; default zeros
    token_embeddings_center    float32  [dimensions]     center of the binary codes of multi-vectors; default zeros

Optional input of the text graph of a pack with late chunking; without it there are no chunks.

    name           dtype    shape                      meaning
    chunk_weights  float32  [batch, chunks, sequence]  1 for the tokens of each chunk, 0 for all others

Optional input of the text graph of a pack with single vectors and multi-vectors; without it all tokens have vectors.

    name         dtype  shape  meaning
    token_limit  int64  [1]    number of tokens of each text, from the first, that have vectors

Outputs of the text graph. `dimensions` differ between single vectors and multi-vectors. Token embeddings exist only if
the pack has multi-vectors, binary outputs only if the dimensions are a multiple of 8, chunk sums only if it has late
chunking. `embedpack.vectors.codes` defines the codes.

    name                       dtype    shape                              meaning
    sentence_embedding         float32  [batch, dimensions]                single vectors; of length 1 if the manifest
                                                                           has them normalized
    sentence_embedding_int8    int8     [batch, dimensions]                their int8 codes
    sentence_embedding_binary  uint8    [batch, dimensions / 8]            their binary codes
    token_embeddings           float32  [batch, sequence, dimensions]      token vectors of length 1, also for padding
    token_embeddings_int8      int8     [batch, sequence, dimensions]      their int8 codes
    token_embeddings_binary    uint8    [batch, sequence, dimensions / 8]  their binary codes
    chunk_sums                 float32  [batch, chunks, dimensions]        sums of the last hidden states of each chunk

A graph that scores pairs has the one output `score`. A graph that scores lists has the input `mark_index` next to its
text inputs, and the one output `mark_vectors`.

    name                       dtype    shape                              meaning
    score                      float32  [batch]                            logit of the score of each pair
    mark_index                 int64    [marks, 2]                         row and column of `input_ids` of each mark
    mark_vectors               float32  [marks, dimensions]                vector at each mark, with a length of its own

Inputs and output of a vision graph that gives the tokens of an image; it takes one per run. Patches are in window
order; `embedpack.inputs.vision_layout` computes all of the inputs. Without windows there are the first two alone, and
patches are token by token.

    name             dtype    shape                   meaning
    patches          float32  [patches, values]       normalized pixel values of each patch
    patch_positions  int64    [2, 1, patches]         row and column of each patch
    window_rows      int64    [windows, slots]        row of `patches` in each slot of a window; 0 in empty slots
    window_mask      int32    [windows, slots]        1 for filled slots, 0 for empty ones
    window_slots     int64    [patches]               slot of each row, counted through all windows
    token_rows       int64    [image_tokens]          position in window order of each token, in the order of the image
    image_embeds     float32  [image_tokens, hidden]  output: vectors of the image's tokens

A vision graph that gives finished vectors has the one input `patches`, in row-major order, and for the image of a run
the outputs `sentence_embedding`, `sentence_embedding_int8` and `sentence_embedding_binary` of a text graph, [1, ...].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedpack.vectors.codes import Precision

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"
POSITION_IDS = "position_ids"
POOL_MASK = "pool_mask"
IMAGE_EMBEDS = "image_embeds"
IMAGE_INDEX = "image_index"

SENTENCE_EMBEDDING = "sentence_embedding"
TOKEN_EMBEDDINGS = "token_embeddings"
SCORE = "score"
MARK_INDEX = "mark_index"
MARK_VECTORS = "mark_vectors"

TOKEN_LIMIT = "token_limit"

CHUNK_WEIGHTS = "chunk_weights"
CHUNK_SUMS = "chunk_sums"

PATCHES = "patches"
PATCH_POSITIONS = "patch_positions"
WINDOW_ROWS = "window_rows"
WINDOW_MASK = "window_mask"
WINDOW_SLOTS = "window_slots"
TOKEN_ROWS = "token_rows"

# Length in tokens up to which texts share a batch with any others, and graphs may compute short texts another way.
LONG_TEXT = 1024

# Symbolic axes.
TOKEN_AXES = ("batch", "sequence")
IMAGE_TOKEN_AXES = ("image_tokens", "hidden")
IMAGE_AXES = ("images",)


@dataclass(frozen=True)
class GraphInput:
    """Name, dtype and shape of an input; symbolic axes are strings."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int | str, ...]


TEXT_INPUTS = (GraphInput(INPUT_IDS, np.int64, TOKEN_AXES), GraphInput(ATTENTION_MASK, np.int64, TOKEN_AXES))
# Input of a text graph with token types, next to TEXT_INPUTS.
TOKEN_TYPES_INPUT = GraphInput(TOKEN_TYPE_IDS, np.int64, TOKEN_AXES)
# Inputs of a text graph that takes images, next to TEXT_INPUTS.
IMAGE_INPUTS = (
    GraphInput(POSITION_IDS, np.int64, (3, *TOKEN_AXES)),
    GraphInput(POOL_MASK, np.int64, TOKEN_AXES),
    GraphInput(IMAGE_EMBEDS, np.float32, IMAGE_TOKEN_AXES),
    GraphInput(IMAGE_INDEX, np.int64, ("image_tokens", 2)),
)


def vision_inputs(values: int, slots: int | None) -> tuple[GraphInput, ...]:
    """Inputs of a vision graph with patches of `values` numbers and windows of `slots` patches; None: no windows."""
    patches = (patches_input(values), GraphInput(PATCH_POSITIONS, np.int64, (2, 1, "patches")))
    if slots is None:
        return patches
    return (
        *patches,
        GraphInput(WINDOW_ROWS, np.int64, ("windows", slots)),
        GraphInput(WINDOW_MASK, np.int32, ("windows", slots)),
        GraphInput(WINDOW_SLOTS, np.int64, ("patches",)),
        GraphInput(TOKEN_ROWS, np.int64, ("image_tokens",)),
    )


def patches_input(values: int) -> GraphInput:
    """The one input of a vision graph that gives finished vectors, with patches of `values` numbers."""
    return GraphInput(PATCHES, np.float32, ("patches", values))


def int8_output(vectors: str) -> str:
    """Name of the output with the int8 codes of SENTENCE_EMBEDDING or TOKEN_EMBEDDINGS."""
    return f"{vectors}_int8"


def binary_output(vectors: str) -> str:
    """Name of the output with the binary codes of SENTENCE_EMBEDDING or TOKEN_EMBEDDINGS."""
    return f"{vectors}_binary"


def center_input(vectors: str) -> str:
    """Name of the input with the center of the binary codes of SENTENCE_EMBEDDING or TOKEN_EMBEDDINGS."""
    return f"{vectors}_center"


def lora_inputs(module: str) -> tuple[str, str]:
    """Names of the inputs with the factors A and B of the adapter of a linear layer."""
    return f"{module}.lora_A", f"{module}.lora_B"


def output_for(vectors: str, precision: Precision) -> str:
    """Name of the output that vectors of a precision are made from: float32 for all but int8.

    Of the low-bit codes a graph has only the binary ones, so the runtime makes them all with the codebook.
    """
    return int8_output(vectors) if precision == "int8" else vectors
