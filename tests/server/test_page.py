"""The pages of a server in a real browser: wide and narrow, light and dark, with texts and files."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedpack import Embedder, Reranker, similarity
from tests.helpers.browser import Browser, find_chromium, open_browser
from tests.helpers.server_process import Server, running
from tests.helpers.tiny_pack import TINY_RERANKER

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
KEY = "a-key"
HOSTILE = "<img src=x onerror=alert(1)>"
QUERY = 'it\'s "where" \\ the router'
DOCUMENTS = ["a cat sleeps on the roof", HOSTILE, "the router stands in the cellar"]
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(19, 22, 26)"}
# Resolves when an expression is true.
UNTIL = "new Promise(done => {{ const look = () => ({}) ? done(true) : setTimeout(look, 5); look(); }})"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the tiny pack that wants a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(KEY)
    with running("--api-keys", str(keys)) as started:
        started.wait_until_ready()
        yield started


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with open_browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def address(server: Server, path: str = "/") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def enter(browser: Browser, **values: str) -> None:
    """Change fields of the page."""
    for name, value in values.items():
        browser.evaluate(f"get('{name}').value = {json.dumps(value)}; get('{name}').dispatchEvent(new Event('change'))")


def unlocked(browser: Browser, server: Server, width: int = 1280, scheme: str = "light") -> None:
    """Open the page and enter the key."""
    browser.open(address(server), width, scheme)
    browser.evaluate(UNTIL.format("!get('key-field').hidden"))
    enter(browser, key=KEY)
    browser.evaluate(UNTIL.format("models.length && !get('run').disabled"))


def compare(browser: Browser) -> list[tuple[float, str]]:
    """Scores and texts of the ranking."""
    browser.evaluate(f"get('run').click(); {UNTIL.format('!get(`run`).disabled')}")
    assert browser.evaluate("get('error').hidden"), browser.evaluate("get('error').textContent")
    rows = browser.evaluate(
        "[...document.querySelectorAll('#ranking li')].map(row => "
        "[row.querySelector('.score').textContent, row.querySelector('.document').textContent])"
    )
    return [(float(score), text) for score, text in rows]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_similarities_are_those_of_the_pack(
    browser: Browser, server: Server, embedder: Embedder, width: int, scheme: str
) -> None:
    unlocked(browser, server, width, scheme)
    enter(browser, query=QUERY, documents="\n".join(DOCUMENTS))
    found = compare(browser)
    query = embedder.encode(QUERY, prompt_name="query")
    expected = similarity(query, embedder.encode(DOCUMENTS, prompt_name="passage"))[0]
    order = np.argsort(-expected)
    assert [text for _, text in found] == [DOCUMENTS[number] for number in order]
    np.testing.assert_allclose([score for score, _ in found], expected[order], atol=1e-4)
    assert browser.evaluate("get('facts').innerText").split("\n")[:2] == ["Dimensions", "32"]
    browser.evaluate("get('requests').open = true")
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    # A document stays text, and nothing but this server is asked.
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    requests = [item["request"]["url"] for item in browser.told("Network.requestWillBeSent")]
    assert all(url.startswith(address(server)) for url in requests)
    assert browser.told("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening") == []


def test_the_code_that_is_shown_runs(browser: Browser, server: Server, embedder: Embedder) -> None:
    unlocked(browser, server)
    enter(browser, query=QUERY, documents="\n".join(DOCUMENTS), dimensions="16")
    compare(browser)
    blocks = browser.evaluate("[...document.querySelectorAll('#code pre')].map(block => block.textContent)")
    assert len(blocks) == 4
    expected = embedder.encode(QUERY, prompt_name="query", truncate_dim=16).codes
    space: dict[str, Any] = {"KEY": KEY}
    exec(blocks[1], space)
    curl = [part.replace("$KEY", KEY) for part in shlex.split(blocks[0])]
    answer = json.loads(subprocess.run([*curl, "-sS"], check=True, capture_output=True).stdout)
    for found in (space["answer"], answer):
        assert (np.array(found["data"][0]["embedding"], np.float32) == expected[0]).all()


def test_errors_of_the_server_are_shown(browser: Browser, server: Server) -> None:
    unlocked(browser, server)
    for fields, message in (
        ({"documents": "word " * 500}, "input[0] has more than"),
        ({"documents": ""}, "There are no documents"),
        # With a document: the change of the key asks for the models, and either request may be the first to fail.
        ({"documents": "word", "key": "other"}, "the key is not one of this server"),
    ):
        enter(browser, **fields)
        browser.evaluate(f"get('run').click(); {UNTIL.format('!get(`run`).disabled && !get(`error`).hidden')}")
        assert message in browser.evaluate("get('error').textContent")


@pytest.fixture(scope="module")
def ranking() -> Iterator[Server]:
    """A server of the tiny reranker, without keys."""
    with running(pack=TINY_RERANKER) as started:
        started.wait_until_ready()
        yield started


@pytest.mark.parametrize("width", [1280, 400])
def test_rerankers_give_scores(browser: Browser, ranking: Server, width: int) -> None:
    documents = ["the cat sleeps", "how do i reset a router ?", HOSTILE]
    browser.open(address(ranking), width, "dark")
    browser.evaluate(UNTIL.format("models.length && !get('run').disabled"))
    enter(browser, query="reset the router", documents="\n".join(documents))
    with Reranker(TINY_RERANKER, weights="fp32", threads=1) as model:
        expected = model.rank("reset the router", documents)
    found = compare(browser)
    assert [text for _, text in found] == [documents[each.index] for each in expected]
    np.testing.assert_allclose([score for score, _ in found], [each.score for each in expected], atol=1e-4)
    assert browser.evaluate("get('vector-options').hidden && get('drop').hidden && get('key-field').hidden")
    blocks = browser.evaluate("[...document.querySelectorAll('#code pre')].map(block => block.textContent)")
    space: dict[str, Any] = {}
    exec(blocks[1], space)
    assert [each["index"] for each in space["answer"]["results"]] == [each.index for each in expected]
    browser.evaluate("get('requests').open = true")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.told("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []


FILES = """
models = [{...models[0], input_modalities: ["text", "image"], outputs: ["single", "multi"]}];
showModel();
const sent = [];
call = async (path, body) => {
  sent.push(body);
  const data = (Array.isArray(body.input) ? body.input : [0, 0]).flatMap((each) => (each.pdf ? [1, 2] : [3]));
  return { usage: { total_tokens: 5 }, data: data.map((value) => ({ embeddings: [[value, 0], [0, value]] })) };
};
const dropped = new DataTransfer();
for (const [name, type] of [["a.pdf", "application/pdf"], ["b.png", "image/png"]]) {
  dropped.items.add(new File(["x"], name, { type }));
}
get("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, cancelable: true }));
get("vectors").value = "multi";
"""


def test_dropped_files_become_inputs(browser: Browser, server: Server) -> None:
    """Texts and images are one request, each PDF another; its pages are documents."""
    unlocked(browser, server)
    browser.evaluate(f"(() => {{ {FILES} window.sent = sent; }})()")
    browser.evaluate(UNTIL.format("chosen.length === 2"))
    enter(browser, documents="one\ntwo")
    browser.evaluate("get('vectors').value = 'multi'; get('truncate').checked = true")
    found = compare(browser)
    assert found == [(18.0, "one"), (18.0, "two"), (18.0, ""), (12.0, "a.pdf, page 2"), (6.0, "a.pdf, page 1")]
    assert browser.evaluate("document.querySelector('#ranking img').alt") == "b.png"
    query, documents, pdf = browser.evaluate("sent")
    assert (query["task"], documents["task"]) == ("retrieval.query", "retrieval.passage")
    assert query["return_multivector"] is documents["truncate"] is True
    assert documents["input"] == ["one", "two", {"image": "data:image/png;base64,eA=="}]
    assert pdf["input"] == [{"pdf": "data:application/pdf;base64,eA=="}]
    shown = browser.evaluate("get('code').textContent")
    assert "data:application/pdf;base64,..." in shown
    assert "eA==" not in shown
    browser.evaluate("document.querySelector('#chosen button').click()")
    assert browser.evaluate("chosen.map(each => each.name)") == ["b.png"]


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_of_the_api_shows_the_document(browser: Browser, server: Server, width: int) -> None:
    browser.open(address(server, "/docs"), width, "dark")
    browser.evaluate(UNTIL.format("document.querySelectorAll('h2').length"))
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    text = browser.evaluate("document.body.innerText")
    assert "POST /v1/embeddings" in text
    assert "One of the model's tasks" in text
    links = browser.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))")
    assert len(links) > 20
    assert browser.evaluate(f"{json.dumps(links)}.every(name => document.getElementById(name))")
    assert browser.told("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
