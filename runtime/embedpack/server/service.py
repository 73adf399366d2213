"""Parts of a server that the endpoints share, and the answer to a request, or the error in its place."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from embedpack.errors import CapacityError, EmbedpackError, InputError, MissingExtraError
from embedpack.server.body import BodyMemoryLimit
from embedpack.server.engine_thread import EngineThread
from embedpack.server.image_addresses import ImageAddresses
from embedpack.server.metrics import Metrics
from embedpack.server.middleware import RequestRecord
from embedpack.server.pdf_pages import PdfPages
from embedpack.server.request_errors import ErrorKind, Form, RequestError, describe_bug
from embedpack.server.served_packs import ServedPacks
from embedpack.server.settings import ServeSettings

logger = logging.getLogger("embedpack.server")

JSON = "application/json"
# Status of a request whose client is gone; nobody reads it.
CLIENT_GONE = 499


@dataclass(frozen=True)
class Posted:
    """A request whose body has been read.

    Attributes:
        request: the request.
        body: its body.
        form: form of the body, and of errors.
        start: seconds of `perf_counter` when the body was there.
        until: seconds of `perf_counter` when the request is given up.
    """

    request: Request
    body: bytes
    form: Form
    start: float
    until: float

    @property
    def record(self) -> RequestRecord:
        """Record of the request for its log."""
        record: RequestRecord = self.request.state.record
        return record


Handler = Callable[[Posted], Awaitable[bytes]]


def _alone() -> bool:
    return True


@dataclass(frozen=True)
class Service:
    """Parts of a server that the endpoints share; `all_ready`: True if the other workers, if any, are ready."""

    settings: ServeSettings
    packs: ServedPacks
    engine: EngineThread
    metrics: Metrics
    bodies: BodyMemoryLimit
    pdfs: PdfPages
    addresses: ImageAddresses
    all_ready: Callable[[], bool] = _alone

    @classmethod
    def of(cls, settings: ServeSettings, packs: ServedPacks, engine: EngineThread, metrics: Metrics) -> Service:
        """Service of some packs; `engine` loads them."""
        limits = settings.limits
        addresses = ImageAddresses(settings.allow_urls)
        return cls(settings, packs, engine, metrics, BodyMemoryLimit(limits), PdfPages(limits.images), addresses)

    async def answer(
        self, request: Request, handler: Handler, form_of: Callable[[bytes], Form], field: str = "input"
    ) -> Response:
        """JSON of `handler`, which gets the body; or its error, in the form of the body.

        `field` has the inputs, and is named in errors of inputs.
        """
        record: RequestRecord = request.state.record
        form: Form = "jina"
        try:
            async with self.bodies.read(request) as body:
                start = perf_counter()
                form = form_of(body)
                self.engine.check()
                posted = Posted(request, body, form, start, start + self.settings.deadline)
                return Response(await handler(posted), media_type=JSON)
        except ClientDisconnect:
            self.metrics.rejected.labels("cancelled").inc()
            return Response(status_code=CLIENT_GONE)
        except RequestError as problem:
            return self.refusal(problem, form, record)
        except EmbedpackError as error:
            return self.refusal(_request_error(error, field), form, record)
        except Exception as error:  # a bug must not end the server
            return self.refusal(RequestError(ErrorKind.INTERNAL, describe_bug(error)), form, record)

    def refusal(self, problem: RequestError, form: Form, record: RequestRecord) -> Response:
        """Answer with an error."""
        self.metrics.rejected.labels(problem.kind.name.lower()).inc()
        if problem.kind is ErrorKind.INTERNAL:
            # A message for who runs the server: it has paths.
            logger.error("%s: %s", record.id, problem.message)
            problem = RequestError(ErrorKind.INTERNAL, "the server failed; its log has the reason by the request's id")
        return Response(problem.body(form, record.id), problem.status(form), problem.headers, JSON)


def _request_error(error: EmbedpackError, field: str) -> RequestError:
    if isinstance(error, InputError | MissingExtraError):
        return RequestError(ErrorKind.INVALID, str(error), field)
    if isinstance(error, CapacityError):
        return RequestError(ErrorKind.TOO_LARGE, str(error), field)
    return RequestError(ErrorKind.INTERNAL, str(error))
