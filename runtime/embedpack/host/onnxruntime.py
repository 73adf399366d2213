"""onnxruntime with its telemetry off; every import of onnxruntime goes through this module.

Linux wheels since 1.31 collect events by default: a device id and a queue in the user's cache, look-ups of the vendor's
host, and a file in the temporary folder. The library reads the variable once, when it is loaded (Privacy.md of
onnxruntime). A value that the user set stays.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

__all__ = ["ort", "ort_errors"]
