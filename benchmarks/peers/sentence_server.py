"""A server of sentence-transformers as one would write it in 40 lines: float32, one call at a time, no batching."""

from __future__ import annotations

import base64
import socket
import sys
import threading

import torch
import uvicorn
from sentence_transformers import SentenceTransformer
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
torch.set_num_threads(int(sys.argv[2]))
one_at_a_time = threading.Lock()


def encode(texts: list[str]) -> list[str]:
    with one_at_a_time:
        vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    return [base64.b64encode(vector.tobytes()).decode() for vector in vectors]


async def embeddings(request: Request) -> JSONResponse:
    body = await request.json()
    vectors = await run_in_threadpool(encode, body["input"])
    return JSONResponse({"model": body["model"], "data": [{"embedding": vector} for vector in vectors]})


async def ready(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ready")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"]), Route("/ready", ready)])
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listener])
