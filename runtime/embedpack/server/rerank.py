"""`POST /v1/rerank`."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from embedpack.server.rank_requests import RankCall, check_rank_call
from embedpack.server.rank_schemas import RankAnswer, RankedText, RankResult, RankUsage
from embedpack.server.rank_work import FIELD
from embedpack.server.served_rankers import rank_work
from embedpack.server.service import Posted, Service
from embedpack.server.submission import computed_result
from embedpack.vectors.arrays import Float32

# As the hosted API rounds scores.
DECIMALS = 8


@dataclass(frozen=True)
class RerankEndpoint:
    """The endpoint for scores."""

    service: Service

    async def post(self, request: Request) -> Response:
        """`POST /v1/rerank`. All errors are in Jina's form."""
        return await self.service.answer(request, self._answer, lambda body: "jina", FIELD)

    async def _answer(self, posted: Posted) -> bytes:
        service, limits = self.service, self.service.settings.limits
        call = check_rank_call(posted.body, limits)
        work = rank_work(service.packs.find(call.model), call, limits.tokens)
        posted.record.items = len(call.texts.documents)
        parsed = perf_counter()
        result = await computed_result(service.engine, work, posted.request, posted.until)
        computed = perf_counter()
        answer = RankAnswer(
            model=call.model, usage=RankUsage(result.tokens), results=ranked_results(result.values[0], call)
        )
        content = msgspec.json.encode(answer)
        posted.record.tokens = result.tokens
        service.metrics.tokens.inc(result.tokens)
        seconds = {"parse": parsed - posted.start, **result.seconds, "encode": perf_counter() - computed}
        service.metrics.observe_stages(seconds)
        return content


def _echo(document: object) -> RankedText | None:
    """The document as it was sent; None for an image."""
    return RankedText(document) if isinstance(document, str) else None


def ranked_results(scores: Float32, call: RankCall) -> list[RankResult]:
    """The best documents of scores, float32 [documents], best first, equal ones by their index."""
    order = np.argsort(-scores, kind="stable")[: call.top_n]
    return [
        RankResult(
            index=int(row),
            relevance_score=round(float(scores[row]), DECIMALS),
            document=_echo(call.texts.documents[row]) if call.return_documents else None,
        )
        for row in order
    ]
