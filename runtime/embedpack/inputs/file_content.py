"""Content of text files and of standard input: read whole, decompressed, within the memory."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path
from typing import IO

from embedpack.errors import CapacityError, InputError, failed
from embedpack.host.memory import check_memory

STANDARD_INPUT = "-"
GZIP_SUFFIX = ".gz"
CHUNK_BYTES = 1 << 24
# Of one file: a gzip file may grow by a factor of 1000.
MAX_CONTENT_BYTES = 16_000_000_000
# Content, decoded text and the texts of its records are in memory at the same time.
COPIES = 3

# First bytes of files that are no text, although some of them decode as UTF-8.
SIGNATURES = {
    b"PAR1": "a Parquet file; name it .parquet",
    b"\x1f\x8b": "a gzip file; name it .gz, or pass it through zcat",
    b"PK\x03\x04": "a zip archive (also .xlsx, .docx); extract its texts",
    b"%PDF-": "a PDF; name it .pdf",
    b"\x28\xb5\x2f\xfd": "a zstd file; pass it through zstdcat",
    b"BZh": "a bzip2 file; pass it through bzcat",
    b"\xfd7zXZ": "an xz file; pass it through xzcat",
    b"\x93NUMPY": "an array of numpy; pass texts",
    b"SQLite format 3\0": "an SQLite database; export its texts as .csv",
}


def read_text_content(source: str) -> str:
    """Read a UTF-8 file, decompressed if its name ends in .gz; "-" is standard input.

    Raises:
        InputError: it cannot be read, is damaged, not UTF-8, or of a kind that is no text.
        CapacityError: its content does not fit the memory.
    """
    content = _read(source)
    for signature, kind in SIGNATURES.items():
        if content.startswith(signature):
            raise InputError(f"{source}: by its first bytes this is {kind}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = content.count(b"\n", 0, cause.start) + 1
        raise InputError(f"{source}, line {line}: not UTF-8; convert it, e.g. with iconv -t UTF-8") from cause


def _read(source: str) -> bytearray:
    try:
        if source == STANDARD_INPUT:
            return _read_stream(source, sys.stdin.buffer)
        with Path(source).open("rb") as stream:
            if source.lower().endswith(GZIP_SUFFIX):
                return _read_stream(source, gzip.GzipFile(fileobj=stream))
            return _read_stream(source, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
        raise InputError(f"{source}: not a whole gzip file: {cause}; copy it again") from cause
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        raise InputError(f"{source}: {failed('read', cause)}") from cause


def _read_stream(source: str, stream: IO[bytes] | gzip.GzipFile) -> bytearray:
    content = bytearray()
    while chunk := stream.read(CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_CONTENT_BYTES:
            raise CapacityError(f"{source}: more than {MAX_CONTENT_BYTES} bytes of text; split the file")
        check_memory(COPIES * len(content), f"{source}: its text", "split the file")
    return content
