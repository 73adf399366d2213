"""Vectors to codes and back: the one definition of every precision.

Codes are nested (Matryoshka codes): the first d values of a code are the code of the vector truncated to d, bit for
bit. So a code is made from the full unit vector with one scale for all dimensions; what truncation changes, the length,
is put back when codes are decoded.

| precision | stored                         | value i of the vector, before it is brought to length 1 |
|-----------|--------------------------------|----------------------------------------------------------|
| float32   | float32 [n, d], unit length    | x_i                                                      |
| float16   | float16 [n, d]                 | x_i                                                      |
| int8      | int8 [n, d], -127..127         | q_i * scale, q_i = clip(rint(x_i / scale))               |
| binary    | uint8 [n, d/8], first bit high | +1 where x_i > 0, else -1                                |
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embedpack.errors import InputError, unknown

Precision = Literal["float32", "float16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# What the graphs compute for each precision; float16 is rounded from float32 after truncation.
GRAPH_OUTPUTS: dict[Precision, str] = {
    "float32": "sentence_embedding",
    "float16": "sentence_embedding",
    "int8": "sentence_embedding_int8",
    "binary": "sentence_embedding_binary",
}
TOKEN_OUTPUTS: dict[Precision, str] = {
    "float32": "token_embeddings",
    "float16": "token_embeddings",
    "int8": "token_embeddings_int8",
    "binary": "token_embeddings_binary",
}
DTYPES: dict[Precision, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "binary": np.uint8,
}

Codes = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]


def check_precision(precision: str) -> Precision:
    """The precision of that name.

    Raises:
        InputError: there is none.
    """
    for known in PRECISIONS:
        if precision == known:
            return known
    raise InputError(unknown("precision", precision, PRECISIONS))


def code_width(precision: Precision, dimensions: int) -> int:
    """Columns of the code array of vectors of that many dimensions.

    Raises:
        InputError: binary codes are asked for a number of dimensions that does not fill whole bytes.
    """
    if precision != "binary":
        return dimensions
    if dimensions % 8:
        raise InputError(f"binary codes need a multiple of 8 dimensions, not {dimensions}")
    return dimensions // 8


def check_codes(codes: Codes, precision: str, dimensions: int) -> None:
    """Refuse an array that is not what the table says of that precision.

    Raises:
        InputError: see above.
    """
    known = check_precision(precision)
    width = code_width(known, dimensions)
    if codes.ndim != 2 or codes.shape[1] != width or codes.dtype != DTYPES[known]:
        expected = f"[n, {width}] of type {np.dtype(DTYPES[known])}"
        raise InputError(
            f"{known} codes of {dimensions} dimensions are an array {expected}, "
            f"not {list(codes.shape)} of type {codes.dtype}"
        )


def unit(vectors: Float32) -> Float32:
    """Vectors brought to length 1; a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.float32(1e-12))


def quantize(vectors: Float32, precision: Precision, scale: float) -> Codes:
    """Codes of full unit vectors (float32 [n, d]); the numpy twin of the graphs' heads."""
    if precision == "int8":
        return np.clip(np.rint(vectors * inverse_scale(scale)), -127, 127).astype(np.int8)
    if precision == "binary":
        return np.packbits(vectors > 0, axis=-1)
    return vectors.astype(DTYPES[precision])


def inverse_scale(scale: float) -> np.float32:
    """The factor that both the graphs and numpy multiply by: a division would round differently."""
    return np.float32(1.0) / np.float32(scale)


def truncate(codes: Codes, precision: Precision, dimensions: int) -> Codes:
    """The codes of the vectors truncated to `dimensions`."""
    width = code_width(precision, dimensions)
    shorter = width < codes.shape[1]
    codes = np.ascontiguousarray(codes[:, :width])
    if shorter and precision in ("float32", "float16"):
        codes = unit(codes.astype(np.float32))
    return codes.astype(DTYPES[precision], copy=False)


def decode(codes: Codes, precision: Precision, dimensions: int) -> Float32:
    """Unit vectors, float32 [n, dimensions]. A common scale does not change a direction, so none is needed."""
    if precision == "binary":
        return signs(codes, dimensions) / np.sqrt(np.float32(dimensions))
    return unit(codes.astype(np.float32))


def signs(codes: Codes, dimensions: int) -> Float32:
    """Binary codes as +1 and -1, float32 [n, dimensions]."""
    return np.unpackbits(codes, axis=-1, count=dimensions).astype(np.float32) * 2 - 1
