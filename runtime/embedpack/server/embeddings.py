"""`POST /v1/embeddings`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

from starlette.requests import Request
from starlette.responses import Response

from embedpack.inputs.items import Image, Item
from embedpack.server.answers import encode_answer
from embedpack.server.request_items import RequestItems
from embedpack.server.requests import check_call, decode_body, form_of
from embedpack.server.served_formats import vector_format
from embedpack.server.service import Posted, Service
from embedpack.server.submission import computed_result
from embedpack.server.work import RequestInputs


@dataclass(frozen=True)
class EmbeddingsEndpoint:
    """The endpoint for vectors."""

    service: Service

    async def post(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        return await self.service.answer(request, self._answer, form_of)

    async def _answer(self, posted: Posted) -> bytes:
        service, limits = self.service, self.service.settings.limits
        fields = decode_body(posted.body, posted.form)
        served = service.packs.find(fields.model)
        call = check_call(fields, limits, data_uris=served.takes_images, urls=bool(service.settings.allow_urls))
        task = served.task(call)
        form = vector_format(served, call, task.task)
        tokens = min(limits.tokens, limits.vector_tokens) if call.multi else limits.tokens
        parsed = perf_counter()
        async with self._items(call.inputs, posted) as items:
            posted.record.items = len(items)
            rendered = perf_counter()
            work = RequestInputs(served.key(call, task.task), items, task.prompt, call.truncate, tokens)
            result = await computed_result(service.engine, work, posted.request, posted.until)
        computed = perf_counter()
        answer = await encode_answer(fields.model, result, form, multi=call.multi)
        posted.record.tokens = result.tokens
        service.metrics.tokens.inc(result.tokens)
        seconds = {"parse": parsed - posted.start, **result.seconds, "encode": perf_counter() - computed}
        if call.inputs.pdf is not None:
            seconds["render"] = rendered - parsed
        service.metrics.observe_stages(seconds)
        return answer

    @asynccontextmanager
    async def _items(self, inputs: RequestItems, posted: Posted) -> AsyncIterator[Sequence[Item]]:
        """Inputs of a call: as they were sent, with the images that were fetched, or the pages of a PDF."""
        service, request, until = self.service, posted.request, posted.until
        if inputs.pdf is not None:
            async with service.pdfs.rendered(inputs.pdf, request, until) as pages:
                yield pages
        elif inputs.addresses:
            async with service.addresses.fetched(inputs.addresses, request, until) as images:
                yield [
                    Image(item.number, images[item.number]) if item.number in images else item for item in inputs.items
                ]
        else:
            yield inputs.items
