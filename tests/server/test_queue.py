"""The queue: turns and batches, full queues, clients that are gone, deadlines, the end of the engine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpack import Embedder
from embedpack.errors import PackError
from embedpack.inputs.batching import token_budget_batches
from embedpack.inputs.items import Text
from embedpack.inputs.processor import ModelInput
from embedpack.pack.graph_io import SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS
from embedpack.pack.input_recipes import Fill, Prompt
from embedpack.pack.manifest import NO_PREFIX
from embedpack.server.jobs import Job, JobResult, Outcome
from embedpack.server.request_errors import RequestError
from embedpack.server.schedule import JOB_TOKENS, Schedule
from embedpack.server.served_packs import ForwardKey, ServedPacks
from embedpack.server.settings import PackSettings, ServeSettings
from embedpack.server.work import RequestInputs, VectorReading
from tests.helpers.asgi import Answer, call, get, post
from tests.helpers.server import Running, start_app
from tests.helpers.tiny_pack import TINY_PACK
from tests.server.conftest import GatedEncoder

VALID = json.dumps({"model": "tiny", "input": ["a cat"]}).encode()
STAGES = ("parse", "wait", "tokenize", "compute", "encode")
KEY = ForwardKey("tiny", "default-fp32", None, SENTENCE_EMBEDDING, images=False)


@dataclass(frozen=True)
class Lengths:
    """Work of texts with some numbers of tokens."""

    key: ForwardKey
    lengths: list[int]
    max_tokens: int = 10**6
    field: str = "input"

    def read(self, processor: object) -> VectorReading:
        return VectorReading(
            [ModelInput(np.zeros(length, np.int64), slice(0, length), np.zeros(length, np.bool_))
             for length in self.lengths],
            multi=False,
        )  # fmt: skip


def job(lengths: list[int], key: ForwardKey = KEY) -> Job:
    """A tokenized job of texts with some numbers of tokens."""
    made = Job(Lengths(key, lengths), lambda outcome: None)
    made.tokenize(None)  # type: ignore[arg-type]
    return made


LENGTHS = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=30), min_size=1, max_size=8)


@given(LENGTHS, st.integers(8, 200))
def test_batches_take_every_row_once_within_the_budget(lengths: list[list[int]], budget: int) -> None:
    schedule, jobs = Schedule(), [job(each) for each in lengths]
    for each in jobs:
        schedule.add(each)
    taken = []
    while rows := schedule.take(KEY, budget):
        longest = rows[0].length
        assert longest == max(row.length for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= budget
        taken += [(row.job, row.number) for row in rows]
    assert len(set(taken)) == len(taken) == sum(map(len, lengths))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(8, 200))
def test_a_job_alone_has_the_batches_of_a_call(lengths: list[int], budget: int) -> None:
    schedule = Schedule()
    schedule.add(job(lengths))
    batches = []
    while rows := schedule.take(KEY, budget):
        batches.append([row.number for row in rows])
    assert batches == [rows.tolist() for rows in token_budget_batches(lengths, budget)]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(0, 8))
def test_no_job_waits_for_more_than_a_turn_of_each_other(rows: list[int], place: int) -> None:
    """Rows of 50 tokens, one a batch: a job of one row is computed after at most one turn of each job before it."""
    schedule, small = Schedule(), job([50])
    jobs = [job([50] * count) for count in rows]
    for each in [*jobs[:place], small, *jobs[place:]]:
        schedule.add(each)
    before = 0
    while schedule.take(KEY, 50)[0].job is not small:
        before += 50
    assert before <= len(jobs[:place]) * (JOB_TOKENS + 50)


def test_a_batch_is_filled_with_rows_of_other_jobs_that_are_as_long() -> None:
    schedule = Schedule()
    schedule.add(job([40, 8]))
    schedule.add(job([60, 39, 9]))
    lengths = [[row.length for row in schedule.take(KEY, 80)] for _ in range(3)]
    assert lengths == [[40, 39], [8], [60]]
    assert [row.length for row in schedule.take(KEY, 80)] == [9]


def test_keys_take_turns() -> None:
    schedule = Schedule()
    other = replace(KEY, adapter="code")
    first, second, third = job([1]), job([1], other), job([1])
    for each in (first, second, third):
        schedule.add(each)
    assert [schedule.next_key() for _ in range(3)] == [KEY, other, KEY]
    assert schedule.has_others(KEY)
    assert schedule.remove(second)
    assert not schedule.remove(second)
    assert not schedule.has_others(KEY)
    assert list(schedule) == [first, third]


async def posts(running: Running, number: int, body: bytes = VALID, **options: Any) -> list[asyncio.Task[Answer]]:
    """Tasks of requests that are all in the queue."""
    before = len(running.engine)
    tasks = [asyncio.create_task(call(running.app, "POST", "/v1/embeddings", body, **options)) for _ in range(number)]
    while len(running.engine) < before + number:
        await asyncio.sleep(0)
    return tasks


@pytest.fixture
def gated(embedder: Embedder) -> GatedEncoder:
    return GatedEncoder(embedder._encoder)


def test_a_full_queue_refuses_at_once(start: Callable[..., Running], gated: GatedEncoder) -> None:
    running = start(gated, queue=3)

    async def run() -> tuple[Answer, list[Answer]]:
        waiting = await posts(running, 3)
        # Refused before its fields are read, in the form of its API.
        refused = await call(running.app, "POST", "/v1/embeddings", b'{"unreadable": 1}')
        gated.gate.set()
        return refused, list(await asyncio.gather(*waiting))

    refused, answers = asyncio.run(run())
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.json["detail"]["code"] == "RATE_CONCURRENCY_LIMIT_EXCEEDED"
    assert [answer.status for answer in answers] == [200] * 3
    assert b'embedpack_rejected_requests_total{reason="queue_full"} 1.0' in get(running.app, "/metrics").body


def test_a_hundred_clients_that_are_gone_free_their_work(start: Callable[..., Running], gated: GatedEncoder) -> None:
    running = start(gated, queue=101)

    async def run() -> tuple[list[Answer], Answer]:
        (first,) = await posts(running, 1)
        gone = asyncio.Event()
        waiting = await posts(running, 100, gone=gone)
        gone.set()
        answers = list(await asyncio.gather(*waiting))
        assert len(running.engine) == 1
        gated.gate.set()
        return answers, await first

    answers, first = asyncio.run(run())
    assert [answer.status for answer in answers] == [499] * 100
    assert first.status == 200
    assert gated.batches == [1]
    assert b'reason="cancelled"} 100.0' in get(running.app, "/metrics").body


def test_a_large_request_is_interrupted_when_its_client_is_gone(
    start: Callable[..., Running], gated: GatedEncoder
) -> None:
    running = start(gated)
    body = json.dumps({"model": "tiny", "input": ["a cat sleeps"] * 2000}).encode()

    async def run() -> None:
        gone = asyncio.Event()
        (waiting,) = await posts(running, 1, body, gone=gone)
        assert await asyncio.to_thread(gated.entered.wait, 60)
        gone.set()
        assert (await waiting).status == 499
        gated.gate.set()

    asyncio.run(run())
    assert post(running.app, VALID).status == 200
    assert gated.batches == [1]


def test_a_small_request_does_not_wait_for_a_large_one(start: Callable[..., Running], gated: GatedEncoder) -> None:
    running = start(gated)
    large = json.dumps({"model": "tiny", "input": ["a cat sleeps"] * 2000}).encode()

    async def run() -> list[str]:
        ends: list[str] = []
        (first,) = await posts(running, 1, large)
        assert await asyncio.to_thread(gated.entered.wait, 60)
        (second,) = await posts(running, 1)
        first.add_done_callback(lambda task: ends.append("large"))
        second.add_done_callback(lambda task: ends.append("small"))
        gated.gate.set()
        answers = await asyncio.gather(first, second)
        assert [answer.status for answer in answers] == [200, 200]
        return ends

    assert asyncio.run(run()) == ["small", "large"]


def test_the_deadline_gives_up_and_frees_the_work(start: Callable[..., Running], gated: GatedEncoder) -> None:
    running = start(gated, deadline=0.01)
    answer = post(running.app, VALID)
    assert (answer.status, answer.json["detail"]["code"]) == (504, "SERVICE_TIMEOUT")
    assert len(running.engine) == 0
    gated.gate.set()


@dataclass
class Failing:
    """An encoder whose runs raise an error."""

    inner: Any
    error: BaseException

    @property
    def processor(self) -> Any:
        return self.inner.processor

    @property
    def token_budget(self) -> int:
        return 256

    def compute(self, batches: Any, output: str, adapter: str | None = None) -> Any:
        raise self.error


def test_a_server_that_loads_is_alive_and_not_ready(embedder: Embedder) -> None:
    gate = threading.Event()

    def load() -> Any:
        assert gate.wait(60)
        return {("tiny", "default-fp32"): embedder._encoder}

    settings = ServeSettings(packs=(PackSettings(name="tiny", folder=TINY_PACK, weights="fp32"),), threads=1)
    running = start_app(settings, ServedPacks.open(settings), load, None, wait=False)
    assert get(running.app, "/health").status == 200
    ready, refused = get(running.app, "/ready"), post(running.app, VALID)
    assert (ready.status, ready.json) == (503, {"status": "loading"})
    assert (refused.status, refused.json["detail"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    gate.set()
    running.engine.wait_until_loaded()
    assert (get(running.app, "/ready").status, post(running.app, VALID).status) == (200, 200)
    running.engine.stop()


def test_a_dead_engine_turns_ready_red(start: Callable[..., Running], embedder: Embedder) -> None:
    running = start(Failing(embedder._encoder, SystemExit(3)))
    assert get(running.app, "/ready").status == 200
    assert post(running.app, VALID).status == 503
    assert running.failed.wait(60)
    ready = get(running.app, "/ready")
    assert (ready.status, ready.json) == (503, {"status": "failed"})
    assert get(running.app, "/health").status == 200
    refused = post(running.app, VALID)
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")


def test_an_error_of_a_run_is_that_of_its_request(
    start: Callable[..., Running], embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    running = start(Failing(embedder._encoder, PackError("the graph fails")))
    answer = post(running.app, VALID)
    assert (answer.status, answer.json["detail"]["code"]) == (500, "INTERNAL_ERROR")
    assert "the graph fails" in caplog.text
    assert "the graph fails" not in answer.body.decode()
    assert get(running.app, "/ready").status == 200


def test_a_bug_in_a_route_is_an_answer_without_its_message(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*arguments: object, **options: object) -> bytes:
        raise ZeroDivisionError("a secret cat")

    running = start()
    monkeypatch.setattr("embedpack.server.embeddings.encode_answer", fail)
    answer = post(running.app, VALID)
    assert (answer.status, answer.json["detail"]["code"]) == (500, "INTERNAL_ERROR")
    assert "ZeroDivisionError at " in caplog.text
    assert "secret" not in caplog.text + answer.body.decode()


def test_metrics_have_queue_batches_stages_and_rejections(shared: Running) -> None:
    assert post(shared.app, VALID).status == 200
    assert post(shared.app, b"{").status == 422
    text = get(shared.app, "/metrics").body.decode()
    for line in (
        "embedpack_queue_requests 0.0",
        'embedpack_batch_tokens_bucket{le="16.0"} 1.0',
        'embedpack_padding_share_bucket{le="0.01"} 1.0',
        *(f'embedpack_stage_seconds_count{{stage="{stage}"}} 1.0' for stage in STAGES),
        'embedpack_rejected_requests_total{reason="invalid"} 1.0',
        'embedpack_requests_total{path="/v1/embeddings",status="200"} 1.0',
    ):
        assert f"\n{line}\n" in text


def test_a_request_whose_run_fails_does_not_fail_the_others(start: Callable[..., Running], gated: GatedEncoder) -> None:
    compute = gated.compute

    def fails_at_long_texts(batches: Any, output: str, adapter: str | None = None) -> Any:
        for batch in batches:
            if batch.longest > 10:
                raise PackError("the graph fails")
            yield from compute(iter([batch]), output, adapter)

    gated.compute = fails_at_long_texts  # type: ignore[method-assign]
    running = start(gated)
    long = json.dumps({"model": "tiny", "input": ["cat " * 20]}).encode()

    async def run() -> list[Answer]:
        tasks = await posts(running, 1)
        tasks += await posts(running, 3)
        tasks += await posts(running, 1, long)
        tasks += await posts(running, 3)
        gated.gate.set()
        return list(await asyncio.gather(*tasks))

    assert [answer.status for answer in asyncio.run(run())] == [200] * 4 + [500] + [200] * 3


def test_rules_of_a_prompt(embedder: Embedder) -> None:
    """Skipped tokens have no vector, marker and fill count as tokens, and the limit is that of the prompt."""
    outcomes: list[Outcome] = []
    processor = embedder._encoder.processor
    comma = int(processor.tokenizer.encode_pieces([","], 9)[0].ids[0])
    prompt = Prompt(max_tokens=8, marker=9, fill=Fill(token=10, length=7, attended=False), skip=(comma,))
    items = [Text(0, "a cat, a dog"), Text(1, "a")]
    key = replace(KEY, output=TOKEN_EMBEDDINGS)
    made = Job(RequestInputs(key, items, prompt, True, 100), outcomes.append)
    made.tokenize(processor)
    assert [made.length(row) for row in (0, 1)] == [8, 7]
    for row in made.waiting:
        made.add(row, np.arange(10, dtype=np.float32)[:, None])
    # [CLS] marker a cat , a d [SEP]
    assert [vectors.ravel().tolist() for vectors in made.result().values] == [[0, 1, 2, 3, 5, 6, 7], [*range(7)]]
    refusing = Job(RequestInputs(key, [Text(0, "a cat " * 4)], prompt, False, 100), outcomes.append)
    with pytest.raises(RequestError, match=r"input\[0\] has more than the 8 tokens of the prompt; split it"):
        refusing.tokenize(processor)


def test_vectors_of_a_job_are_in_the_order_of_its_items(embedder: Embedder) -> None:
    outcomes: list[Outcome] = []
    texts = ["a", "a cat sleeps", "a cat"]
    items = [Text(number, text) for number, text in enumerate(texts)]
    made = Job(RequestInputs(KEY, items, NO_PREFIX, False, 100), outcomes.append)
    made.tokenize(embedder._encoder.processor)
    assert made.waiting == [1, 2, 0]
    for row in made.waiting:
        made.add(row, np.full(4, row, np.float32))
    result = made.result()
    assert isinstance(result, JobResult)
    assert [vector[0] for vector in result.values] == [0, 1, 2]
