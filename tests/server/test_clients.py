"""Programs that people call Jina's and OpenAI's APIs with, against a server on loopback."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder, Reranker
from tests.helpers.server_process import Server, running
from tests.helpers.tiny_pack import TINY_RERANKER

KEY = "a-key"
QUERY, DOCUMENTS = "reset the router", ["the cat sleeps", "how do i reset a router ?", "a window , a door"]
TEXTS = ["a cat sleeps on the roof", "where is the router"]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Clients measure nothing, and nothing is traced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
        patch.setenv("LANGCHAIN_TRACING_V2", "false")
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the tiny pack that wants a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(KEY)
    with running("--api-keys", str(keys)) as started:
        started.wait_until_ready()
        yield started


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/v1"


def imported(name: str) -> Any:
    """A module of a client, or a skip that names the extra of all clients."""
    pytest.importorskip(name, reason="pip install 'embedpack[clients]'", exc_type=ImportError)
    module: ModuleType = importlib.import_module(name)
    return module


def assert_equal(vectors: Any, expected: Any) -> None:
    assert np.array_equal(np.array(vectors, np.float32), expected)


def test_openai(url: str, embedder: Embedder) -> None:
    openai = imported("openai")
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        answer = client.embeddings.create(model="tiny", input=TEXTS, user="somebody")
        assert_equal([item.embedding for item in answer.data], embedder.encode(TEXTS).codes)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
        short = client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=16, encoding_format="float")
        assert_equal([item.embedding for item in short.data], embedder.encode(TEXTS[0], truncate_dim=16).codes)
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").id == "tiny"


def test_errors_of_openai(url: str) -> None:
    openai = imported("openai")
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(model="tina", input=TEXTS)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as invalid:
            client.embeddings.create(model="tiny", input=TEXTS, dimensions=17)
        assert invalid.value.param == "dimensions"
        with pytest.raises(openai.BadRequestError, match="token ids are not taken"):
            client.embeddings.create(model="tiny", input=[[1, 2]])
        with pytest.raises(openai.BadRequestError, match="unknown"):
            client.embeddings.create(model="tiny", input=TEXTS, extra_body={"unknown": 1})
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="other").embeddings.create(model="tiny", input=TEXTS)


def test_langchain(url: str, embedder: Embedder) -> None:
    langchain = imported("langchain_openai")
    model = langchain.OpenAIEmbeddings(
        model="tiny", base_url=url, api_key=KEY, dimensions=16, check_embedding_ctx_length=False
    )
    assert_equal(model.embed_documents(TEXTS), embedder.encode(TEXTS, truncate_dim=16).codes)
    assert_equal([model.embed_query(TEXTS[0])], embedder.encode(TEXTS[0], truncate_dim=16).codes)


def test_llama_index(url: str, embedder: Embedder) -> None:
    jina = imported("llama_index.embeddings.jinaai")
    model = jina.JinaEmbedding(model="tiny", api_key=KEY, task="retrieval.passage", encoding_queries="ubinary")
    model._api.api_url = f"{url}/embeddings"
    passages = embedder.encode(TEXTS, prompt_name="passage")
    assert_equal(model.get_text_embedding_batch(TEXTS), passages.codes)
    bits = np.packbits(np.array(model.get_query_embedding(TEXTS[0]), np.uint8))
    assert (bits == embedder.encode(TEXTS[0], prompt_name="passage", precision="binary").codes[0]).all()


def test_haystack(url: str, embedder: Embedder) -> None:
    jina = imported("haystack_integrations.components.embedders.jina")
    haystack = imported("haystack")
    key = haystack.utils.Secret.from_token(KEY)
    options = {"api_key": key, "model": "tiny", "base_url": f"{url}/embeddings"}
    query = jina.JinaTextEmbedder(**options, task="retrieval.query", dimensions=16).run(text=TEXTS[0])
    assert_equal([query["embedding"]], embedder.encode(TEXTS[0], prompt_name="query", truncate_dim=16).codes)
    assert query["meta"]["model"] == "tiny"
    documents = [haystack.Document(content=text) for text in TEXTS]
    found = jina.JinaDocumentEmbedder(**options, progress_bar=False).run(documents=documents)
    assert_equal([document.embedding for document in found["documents"]], embedder.encode(TEXTS).codes)


def test_pymilvus(url: str, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    milvus = imported("pymilvus.model.dense.jinaai")
    monkeypatch.setattr(milvus, "API_URL", f"{url}/embeddings")
    model = milvus.JinaEmbeddingFunction(model_name="tiny", api_key=KEY)
    assert_equal(model.encode_documents(TEXTS), embedder.encode(TEXTS, prompt_name="passage").codes)
    assert_equal(model.encode_queries(TEXTS), embedder.encode(TEXTS, prompt_name="query").codes)


@pytest.fixture(scope="module")
def ranking() -> Iterator[str]:
    """Address of a server of the tiny reranker, as `tiny`."""
    with running(pack=TINY_RERANKER) as started:
        started.wait_until_ready()
        yield f"http://127.0.0.1:{started.port}/v1"


@pytest.fixture(scope="module")
def ranked() -> list[tuple[int, float]]:
    """Positions and scores of the two best documents."""
    with Reranker(TINY_RERANKER, weights="fp32", threads=1) as model:
        return [(each.index, round(each.score, 8)) for each in model.rank(QUERY, DOCUMENTS, 2)]


def test_reranker_of_llama_index(ranking: str, ranked: list[tuple[int, float]]) -> None:
    jina = imported("llama_index.postprocessor.jinaai_rerank")
    schema = imported("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text)) for text in DOCUMENTS]
    model = jina.JinaRerank(model="tiny", base_url=ranking, api_key=KEY, top_n=2)
    found = model.postprocess_nodes(nodes, query_str=QUERY)
    assert [(each.node.text, each.score) for each in found] == [(DOCUMENTS[index], score) for index, score in ranked]


def test_reranker_of_haystack(ranking: str, ranked: list[tuple[int, float]]) -> None:
    jina = imported("haystack_integrations.components.rankers.jina")
    haystack = imported("haystack")
    key = haystack.utils.Secret.from_token(KEY)
    model = jina.JinaRanker(model="tiny", api_key=key, base_url=f"{ranking}/rerank", top_k=2)
    found = model.run(query=QUERY, documents=[haystack.Document(content=text) for text in DOCUMENTS])["documents"]
    assert [(each.content, each.score) for each in found] == [(DOCUMENTS[index], score) for index, score in ranked]


def test_reranker_of_cohere(ranking: str, ranked: list[tuple[int, float]]) -> None:
    cohere = imported("cohere")
    httpx = imported("httpx")
    with httpx.Client() as connections:
        client = cohere.Client(api_key=KEY, base_url=ranking.removesuffix("/v1"), httpx_client=connections)
        found = client.rerank(model="tiny", query=QUERY, documents=DOCUMENTS, top_n=2).results
    assert [(each.index, each.relevance_score) for each in found] == ranked
    assert [each.document.text for each in found] == [DOCUMENTS[index] for index, _ in ranked]


def test_reranker_of_pymilvus(ranking: str, ranked: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch) -> None:
    milvus = imported("pymilvus.model.reranker.jinaai")
    monkeypatch.setattr(milvus, "API_URL", f"{ranking}/rerank")
    found = milvus.JinaRerankFunction(model_name="tiny", api_key=KEY)(QUERY, DOCUMENTS, top_k=2)
    assert [(each.index, each.score) for each in found] == ranked
    assert [each.text for each in found] == [DOCUMENTS[index] for index, _ in ranked]


@pytest.mark.skipif(shutil.which("curl") is None, reason="apt-get install curl")
def test_curl(url: str, embedder: Embedder, tmp_path: Path) -> None:
    """The large body comes after "100 Continue"."""
    for texts in (TEXTS, TEXTS * 1000):
        body = tmp_path / "body.json"
        body.write_text(json.dumps({"model": "tiny", "input": texts}))
        command = ["curl", "-sS", "--fail-with-body", f"{url}/embeddings", "-H", f"Authorization: Bearer {KEY}"]
        answer = subprocess.run([*command, "-d", f"@{body}"], check=True, capture_output=True).stdout
        assert_equal([item["embedding"] for item in json.loads(answer)["data"]][:2], embedder.encode(texts).codes[:2])
