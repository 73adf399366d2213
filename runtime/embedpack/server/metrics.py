"""Metrics of a server for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

# Environment variable with the folder of the metrics of all workers; read when prometheus_client is imported.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1)


class Metrics:
    """Metrics of one server, in a registry of their own.

    Attributes:
        queue_depth: requests that wait or are computed.
        rejected: requests without vectors, by reason.
        requests: requests by path and HTTP status.
        stage_seconds: seconds of a request by stage: parse, wait, tokenize, compute, encode.
        tokens: tokens that were read.
    """

    def __init__(self, folder: str | None = None) -> None:
        """`folder` has the metrics of all workers; None: there are no others."""
        self.registry = CollectorRegistry()
        self._folder = folder
        registry = self.registry
        self.queue_depth = Gauge(
            "embedpack_queue_requests",
            "Requests that wait or are computed.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.rejected = Counter(
            "embedpack_rejected_requests", "Requests without vectors, by reason.", ["reason"], registry=registry
        )
        self.requests = Counter(
            "embedpack_requests", "Requests by path and HTTP status.", ["path", "status"], registry=registry
        )
        self.stage_seconds = Histogram(
            "embedpack_stage_seconds", "Seconds of a request by stage.", ["stage"], buckets=SECONDS, registry=registry
        )
        self.tokens = Counter("embedpack_tokens", "Tokens that were read.", registry=registry)
        self._batch_tokens = Histogram(
            "embedpack_batch_tokens", "Tokens of a batch, with padding.", buckets=TOKENS, registry=registry
        )
        self._padding_share = Histogram(
            "embedpack_padding_share", "Share of padding of a batch.", buckets=SHARES, registry=registry
        )

    def observe_batch(self, tokens: int, used: int) -> None:
        """Count a batch of `tokens` tokens, `used` of which are no padding."""
        self._batch_tokens.observe(tokens)
        self._padding_share.observe(1 - used / tokens)

    def observe_stages(self, seconds: dict[str, float]) -> None:
        """Count the seconds of a request by stage."""
        for stage, value in seconds.items():
            self.stage_seconds.labels(stage).observe(value)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format, summed over the workers."""
        if self._folder is None:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
