"""Metrics: what an operator watches, in Prometheus' format."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from runnel.policies import Round

SHORT = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
LONG = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0)
DEEPEST = 16
"""Positions of a draft that are counted apart."""


class Times(Collector):
    """A histogram that notes equal times together: all texts that a round goes on with have waited equally long."""

    def __init__(self, name: str, about: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self.name, self.about, self.buckets = name, about, buckets
        self.counts, self.total = [0] * (len(buckets) + 1), 0.0
        registry.register(self)

    def note(self, seconds: float, count: int) -> None:
        self.counts[bisect_left(self.buckets, seconds)] += count
        self.total += seconds * count

    def collect(self) -> Iterator[HistogramMetricFamily]:
        names = [*map(str, self.buckets), "+Inf"]
        counts = list(zip(names, accumulate(self.counts), strict=True))
        yield HistogramMetricFamily(self.name, self.about, buckets=counts, sum_value=self.total)


class Metrics:
    """The numbers of one server. Their names begin with `runnel_`."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("runnel_requests", "Requests.", ["path", "status"], registry=registry)
        self.first_token = Histogram(
            "runnel_time_to_first_token_seconds",
            "From the request to its first token.",
            buckets=LONG,
            registry=registry,
        )
        self.between = Times(
            "runnel_inter_token_seconds", "Between tokens of a text; those of one round share it.", SHORT, registry
        )
        self.queued = Gauge("runnel_queue_jobs", "Jobs that wait.", registry=registry)
        self.waited = Histogram("runnel_queue_seconds", "How long jobs waited.", buckets=LONG, registry=registry)
        self.batch = Gauge("runnel_batch_rows", "Texts that are being written.", registry=registry)
        self.state_bytes = Gauge("runnel_state_bytes", "Bytes of the states in the batch.", registry=registry)
        self.kept = Gauge("runnel_kept_bytes", "Bytes of kept states.", ["tier"], registry=registry)
        self.read = Counter("runnel_tokens_read", "Tokens of prompts that were read.", registry=registry)
        self.reused = Counter(
            "runnel_tokens_reused", "Tokens of prompts that a kept state had read.", registry=registry
        )
        self.prefix = Counter("runnel_prefix_lookups", "Looks for a kept prefix.", ["result"], registry=registry)
        self.written = Counter("runnel_tokens_written", "Tokens written.", registry=registry)
        self.calls = Counter("runnel_target_calls", "Rounds, each one call of the model.", registry=registry)
        self.drafted = Counter("runnel_drafted", "Drafts that reached this far.", ["position"], registry=registry)
        self.accepted = Counter("runnel_accepted", "Drafts accepted this far.", ["position"], registry=registry)
        self.failures = Counter("runnel_failures", "Jobs that failed.", ["kind"], registry=registry)

    def see(self, round: Round) -> None:
        """Count what was drafted in a round: how deep each row was drafted, and how far it was accepted."""
        if not round.forest.children:
            return
        deepest = [0] * len(round.rows)
        for depth, row in zip(round.forest.depths, round.forest.rows, strict=True):
            deepest[row] = max(deepest[row], depth)
        for walk, drafted in zip(round.walks, deepest, strict=True):
            for position in range(1, min(drafted, DEEPEST) + 1):
                self.drafted.labels(position).inc()
            for position in range(1, min(len(walk.path) - 1, DEEPEST) + 1):
                self.accepted.labels(position).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
