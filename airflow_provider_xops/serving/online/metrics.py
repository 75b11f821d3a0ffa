"""The server's figures for Prometheus.

For the edge, which counts, and for ``GET /metrics``, which prints. Each server has a registry of its own.
Labels are names the server knows (routes as they were declared, models, versions, roles) and never a path, a
key or a column a client sent, so that no client can make the number of series grow.

=========================================  =========  ===================================================
``xops_requests_total``                    counter    route, model, version, variant, status
``xops_request_seconds``                   histogram  route, model, version, variant; answers without error
``xops_predict_seconds``                   histogram  model, version, variant: the model's own time
``xops_rows_total``                        counter    model, version, variant
``xops_rows_not_finite_total``             counter    model, version, variant: predicted as NaN or infinite
``xops_inflight_requests``                 gauge      worked on or waiting
``xops_stuck_requests``                    gauge      answered with 504, still held by the model
``xops_body_bytes``                        gauge      bodies of requests in memory
``xops_ready``                             gauge      model: 1 when it is loaded and serving
``xops_plan_served``                       gauge      model: 1 when what the lake says is served whole; 0:
                                                      a version is loading or cannot be loaded
``xops_version_loaded``                    gauge      model, version, role: share of the requests
``xops_swaps_total``                       counter    model: exchanges of what answers
``xops_polls_total``                       counter    model, outcome: looks at the lake, read or failed
``xops_follower_age_seconds``              gauge      model: since the lake was last read with success
``xops_log_queued_rows``                   gauge      model
``xops_log_rows_total``                    counter    model, state: written, dropped,
                                                      without_inputs (of those written)
``xops_shadow_total``                      counter    model, version, state: rows asked, compared, agreed;
                                                      requests_dropped, requests_failed
``xops_shadow_difference``                 gauge      model, version: mean distance of the scores
=========================================  =========  ===================================================
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "Figures"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_PART = ["model", "version", "variant"]


class Figures:
    """Counts what happens, and asks others for what is.

    :meth:`request` is called in the event loop's thread only, :meth:`predicted` in any.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "xops_requests", "Answered requests", ["route", *_PART, "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "xops_request_seconds", "From the whole request to its answer, where it was answered",
            ["route", *_PART], buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._predict = Histogram(
            "xops_predict_seconds", "What the model took", _PART, buckets=BUCKETS, registry=self.registry
        )
        self._rows = Counter("xops_rows", "Rows predicted", _PART, registry=self.registry)
        self._not_finite = Counter(
            "xops_rows_not_finite", "Rows predicted as NaN or infinite", _PART, registry=self.registry
        )
        # A labelled child is looked up under a lock and by text: a request does that once.
        self._children: dict[Any, Any] = {}
        self._versions: dict[tuple[str, str], _VersionFigures] = {}

    def present(self, gauges: Callable[[], Iterable[Metric]]) -> None:
        """Print these beside the counters: they are asked for at each scrape."""
        self.registry.register(_Present(gauges))

    def request(
        self,
        route: str,
        status: int,
        seconds: float,
        *,
        model: str = "",
        version: str = "",
        variant: str = "",
        failed: bool = False,
    ) -> None:
        """One answered request.

        :param failed: the model could not answer, or not with a number, whatever the status says of whose
            affair that is.
        """
        key = (route, status, model, version, variant)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = (
                self._requests.labels(route, model, version, variant, str(status)),
                self._seconds.labels(route, model, version, variant) if status < 400 else None,
                self._versions.setdefault((model, version), _VersionFigures()) if version else None,
            )
        counter, histogram, of_version = found
        counter.inc()
        if histogram is not None:
            histogram.observe(seconds)
        if of_version is not None:
            of_version.add(status, seconds, failed)

    def by_version(self, model: str) -> dict[str, dict[str, Any]]:
        """By version, since the server began: ``requests``, ``errors`` (the model or the server could not
        answer, or a prediction is no finite number), ``refused`` (what was sent does not fit the version, or
        is too much), and how many answers took at most so many seconds (``within_seconds``, cumulative, the
        last key ``inf``).
        """
        return {
            version: figures.to_json()
            for (name, version), figures in list(self._versions.items())
            if name == model
        }

    def predicted(
        self, model: str, version: str, variant: str, rows: int, seconds: float, *, not_finite: int = 0
    ) -> None:
        """One call of a model.

        :param not_finite: rows of them with a number that is NaN or infinite.
        """
        key = (model, version, variant)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = (
                self._predict.labels(*key), self._rows.labels(*key), self._not_finite.labels(*key),
            )  # fmt: skip
        found[0].observe(seconds)
        found[1].inc(rows)
        if not_finite:
            found[2].inc(not_finite)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return bytes(generate_latest(self.registry))


class _Present(Collector):
    def __init__(self, gauges: Callable[[], Iterable[Metric]]) -> None:
        self._gauges = gauges

    def describe(self) -> list[Metric]:
        # Without this the registry would ask for the state when it registers, before there is one.
        return []

    def collect(self) -> Iterable[Metric]:
        return self._gauges()


class _VersionFigures:
    """What one version's requests came to."""

    def __init__(self) -> None:
        self.requests = 0
        self.errors = self.refused = 0
        self._slots = [0] * (len(BUCKETS) + 1)

    def add(self, status: int, seconds: float, failed: bool) -> None:
        self.requests += 1
        if failed or status >= 500:
            self.errors += 1
        elif status >= 400:
            self.refused += 1
        else:
            self._slots[bisect.bisect_left(BUCKETS, seconds)] += 1

    def to_json(self) -> dict[str, Any]:
        names = [*(f"{bound:g}" for bound in BUCKETS), "inf"]
        within = dict(zip(names, itertools.accumulate(self._slots), strict=True))
        return {
            "requests": self.requests,
            "errors": self.errors,
            "refused": self.refused,
            "within_seconds": within,
        }
