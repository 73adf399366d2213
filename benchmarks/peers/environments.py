"""Virtual environments of the peers with exact versions, installed on request."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedpack import EmbedpackError

logger = logging.getLogger("benchmarks")

# Packages of each environment; the worker needs numpy and msgspec.
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "torch": (
        "torch==2.13.0", "transformers==5.23.0", "sentence-transformers==6.2.0", "onnx==1.23.2", "onnxscript==0.7.2",
        "onnxruntime==1.31.1", "numpy==2.4.6", "msgspec==0.22.0",
    ),
    "openvino": (
        "openvino==2026.4.1", "nncf==3.4.0", "torch==2.13.0", "transformers==5.23.0", "msgspec==0.22.0",
    ),
    "ctranslate2": ("ctranslate2==4.8.5", "torch==2.13.0", "transformers==5.23.0", "msgspec==0.22.0"),
    "llama": (
        "llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors==0.8.0", "numpy==2.4.6", "msgspec==0.22.0",
    ),
    "fastembed": ("fastembed==0.9.1", "onnxruntime==1.31.1", "msgspec==0.22.0"),
    "candle": ("candding==0.1.0", "numpy==2.4.6", "msgspec==0.22.0"),
}  # fmt: skip
# The image part of llama.cpp is not needed and takes long to compile.
VARIABLES: Mapping[str, Mapping[str, str]] = {"llama": {"CMAKE_ARGS": "-DLLAVA_BUILD=OFF"}}
STAMP = "installed.txt"


def python_of(root: Path, name: str) -> Path:
    """Interpreter of an environment, which is installed if it is missing or has other versions.

    Raises:
        EmbedpackError: the installation failed; the message ends with the last line that pip printed.
    """
    folder, versions = root / name, "\n".join(ENVIRONMENTS[name])
    python, stamp = folder / "bin" / "python", folder / STAMP
    if stamp.is_file() and stamp.read_text("utf-8") == versions:
        return python
    logger.info("installing %s", ", ".join(ENVIRONMENTS[name]))
    stamp.unlink(missing_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], name)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *ENVIRONMENTS[name]], name)
    stamp.write_text(versions, "utf-8")
    return python


def _run(command: Sequence[str], name: str) -> None:
    variables = {**os.environ, **VARIABLES.get(name, {})}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise EmbedpackError(f"the environment {name} cannot be installed: {lines[-1]}")
