"""Scans of a JPEG file (ITU-T T.81), counted before it is decoded."""

from __future__ import annotations

import re

from embedpack.errors import InputError

# Decoding takes time by scans x pixels: encoders write up to some 10 scans, a file of 100 kB can have thousands.
MAX_SCANNED_PIXELS = 2_000_000_000
MAX_SCANS = 1000
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
HUFFMAN_SEQUENTIAL = (0xC0, 0xC1)
# A marker within coded data: not a stuffed byte, a fill byte, or a restart.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Every coded block of 8 x 8 values has at least two bits in a sequential file: its mean, and its end.
BLOCK_VALUES, BLOCK_BITS = 64, 2


def check_scans(content: bytes, pixels: int, name: str) -> None:
    """Refuse a JPEG file of too many scans, or with less data than its pixels need; decoders fill these with gray.

    Progressive files may have less than one bit per block, so their data is not measured. InputError; a file that ends
    early or is no JPEG file is left to the decoder.
    """
    scans = coded = 0
    sequential = False
    position = 2
    while found := MARKER.search(content, position):
        marker, position = content[found.start() + 1], found.end()
        if marker == END_OF_IMAGE:
            break
        sequential |= marker in HUFFMAN_SEQUENTIAL
        if len(content) < position + 2:
            return
        position += int.from_bytes(content[position : position + 2], "big")
        if marker != START_OF_SCAN:
            continue
        scans += 1
        end = MARKER.search(content, position)
        coded += (end.start() if end else len(content)) - position
        if scans > MAX_SCANS or scans * pixels > max(MAX_SCANNED_PIXELS, pixels):
            raise InputError(f"{name} is a JPEG file of {scans} scans or more at {pixels} pixels; save it again")
    if scans and sequential and coded * 8 < pixels // BLOCK_VALUES * BLOCK_BITS:
        raise InputError(
            f"{name} cannot be decoded, it is damaged or cut off: {coded} bytes of coded data are too few for "
            f"{pixels} pixels; save it again"
        )
