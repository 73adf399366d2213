"""Test of this CPU for saturating u8 x s8 products: one small product by onnxruntime's own kernel.

x86 without VNNI adds two u8 x s8 products in 16 bits, which saturate at 32,767. Weights of int8 graphs are rounded so
that no pair overflows, but int8 is less of an advantage on such CPUs, which is worth a log line. The probe multiplies a
row of sixteen 255 by columns of 127: the exact sum is 518,160.
"""

from __future__ import annotations

import base64
from functools import cache

import numpy as np

from embedpack.host.onnxruntime import ort

# MatMulInteger of uint8 [1, 16] with int8 [16, 16], all 127; made by tests/helpers/make_saturation_probe.py.
PROBE = base64.b64decode(
    "CAo6kQMKKwoDcm93CgZ3ZWlnaHQSBHN1bXMaB3Byb2R1Y3QiDU1hdE11bEludGVnZXISBXByb2JlKpECCBAIEBADQgZ3ZWlnaHRK"
    "gAJ/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/"
    "f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/"
    "f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/"
    "f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/WhUKA3JvdxIOCgwIAhIICgIIAQoCCBBiFgoEc3VtcxIOCgwIBhIICgII"
    "AQoCCBBqGAoGd2VpZ2h0Eg4KDAgDEggKAggQCgIIEEIECgAQFw=="
)


@cache
def products_saturate() -> bool:
    """True if products of large weights saturate on this CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(PROBE, options, providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"row": np.full((1, 16), 255, np.uint8)})
    return bool((np.asarray(sums) != 16 * 255 * 127).any())
