"""Everything one server process serves, and how it is doing.

For the HTTP application and for the process that runs it. A :class:`Site` is the served models with what
follows, logs and shadows for each; it starts and stops them, and tells their state to people
(``GET /xops/status``) and to Prometheus.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving.online.auth import Guard
from airflow_provider_xops.serving.online.fleet import Fleet
from airflow_provider_xops.serving.online.follower import Follower
from airflow_provider_xops.serving.online.limits import Limits
from airflow_provider_xops.serving.online.metrics import Figures
from airflow_provider_xops.serving.online.scoring import Scorer

__all__ = ["Served", "Site"]

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Served:
    """One model that clients can ask for.

    :param name: what clients call it: the model's name, or ``model@alias`` where two aliases of one model are
        served.
    :param follower: keeps the fleet at what the lake says; None: the fleet is looked after elsewhere.
    """

    name: str
    model: str
    alias: str
    fleet: Fleet
    scorer: Scorer
    follower: Follower | None = None

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.fleet.ready


@dataclass(kw_only=True)
class Site:
    """The models of one server process.

    :param server: the server's own name. :param clock: gives the time (aware, UTC).
    :param serving: what is served, in the order it was asked for.
    :raises ArgumentError: ``argument.served``: nothing, or two of one name.
    """

    server: str
    serving: Sequence[Served]
    figures: Figures
    clock: Callable[[], datetime]
    guard: Guard = field(default_factory=lambda: Guard(environ={}))
    limits: Limits = field(default_factory=Limits)
    key_header: str = "X-Request-Key"
    draining: bool = False

    def __post_init__(self) -> None:
        self.by_name = {each.name: each for each in self.serving}
        if not self.serving or len(self.by_name) < len(self.serving):
            raise ArgumentError(
                "the server has nothing to serve, or two models of one name",
                code="argument.served",
                todo="name each model and alias once",
            )
        self.figures.present(self._gauges)

    @property
    def only(self) -> Served | None:
        """The served model, where it is the only one."""
        return self.serving[0] if len(self.serving) == 1 else None

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: every model is loaded, and the server does not end."""
        return not self.draining and all(each.ready for each in self.serving)

    def start(self) -> None:
        """Begin to follow the lake, in threads."""
        for each in self.serving:
            if each.follower is not None:
                each.follower.start()

    def stop(self, timeout: float) -> int:
        """Stop following, write the prediction logs; gives the number of rows that could not be written.

        :param timeout: seconds for all of it.
        """
        end = time.monotonic() + timeout

        def left() -> float:
            return max(0.05, end - time.monotonic())

        for each in self.serving:
            if each.scorer.shadows is not None:
                each.scorer.shadows.close(min(2.0, left()))
        lost = sum(
            each.scorer.prediction_log.close(left())
            for each in self.serving
            if each.scorer.prediction_log is not None
        )
        for each in self.serving:
            if each.follower is not None:
                each.follower.stop(min(2.0, left()))
        return lost

    def status(self) -> dict[str, Any]:
        """Everything about the server as plain JSON: no data, no secrets."""
        return {
            "server": self.server,
            "ready": self.ready,
            "draining": self.draining,
            "models": {each.name: self.status_of(each) for each in self.serving},
        }

    def status_of(self, served: Served) -> dict[str, Any]:
        """One served model's part of it."""
        logged, shadows = served.scorer.prediction_log, served.scorer.shadows
        return {
            "model": served.model,
            "alias": served.alias,
            "fleet": served.fleet.status(),
            "follower": None if served.follower is None else served.follower.status().to_json(),
            "log": None
            if logged is None
            else {"table": logged.table, "overflow": logged.overflow, **dataclasses.asdict(logged.stats())},
            "shadows": []
            if shadows is None
            else [
                {"version": version, "agreement": stats.agreement, **dataclasses.asdict(stats)}
                for (_, version), stats in shadows.stats().items()
            ],
            "figures": self.figures.by_version(served.name),
        }

    def _gauges(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily("xops_ready", "1 when the model is loaded and serving", labels=["model"])
        loaded = GaugeMetricFamily(
            "xops_version_loaded", "Share of the requests of a loaded version",
            labels=["model", "version", "role"],
        )  # fmt: skip
        planned = GaugeMetricFamily(
            "xops_plan_served", "1 when what the lake says is served as it stands", labels=["model"]
        )
        swaps = CounterMetricFamily("xops_swaps", "Exchanges of what answers", labels=["model"])
        polls = CounterMetricFamily("xops_polls", "Looks at the lake", labels=["model", "outcome"])
        age = GaugeMetricFamily(
            "xops_follower_age_seconds", "Since the lake was last read with success", labels=["model"]
        )
        queued = GaugeMetricFamily("xops_log_queued_rows", "Rows that wait to be written", labels=["model"])
        rows = CounterMetricFamily("xops_log_rows", "Rows of the log", labels=["model", "state"])
        shadow = CounterMetricFamily("xops_shadow", "Rows shadows saw", labels=["model", "version", "state"])
        distance = GaugeMetricFamily(
            "xops_shadow_difference", "Mean distance of a shadow's scores", labels=["model", "version"]
        )
        now = self.clock()
        for each in self.serving:
            state = each.fleet.status()
            ready.add_metric([each.name], float(each.ready))
            planned.add_metric([each.name], float(state["whole"]))
            for variant in state["serving"]["variants"]:
                loaded.add_metric(
                    [each.name, str(variant["version"]), str(variant["role"])], float(variant["weight"])
                )
            swaps.add_metric([each.name], each.fleet.swaps)
            if each.follower is not None:
                status = each.follower.status()
                polls.add_metric([each.name, "failed"], status.failures)
                polls.add_metric([each.name, "read"], status.looks - status.failures)
                if status.looked_at is not None:
                    age.add_metric([each.name], (now - status.looked_at).total_seconds())
            if each.scorer.prediction_log is not None:
                stats = each.scorer.prediction_log.stats()
                queued.add_metric([each.name], stats.queued)
                rows.add_metric([each.name, "written"], stats.written)
                rows.add_metric([each.name, "dropped"], stats.dropped)
                rows.add_metric([each.name, "without_inputs"], stats.without_inputs)
            if each.scorer.shadows is not None:
                for (_, version), seen in each.scorer.shadows.stats().items():
                    labels = [each.name, str(version)]
                    shadow.add_metric([*labels, "asked"], seen.rows)
                    shadow.add_metric([*labels, "compared"], seen.compared)
                    shadow.add_metric([*labels, "agreed"], seen.agreeing)
                    shadow.add_metric([*labels, "requests_dropped"], seen.dropped)
                    shadow.add_metric([*labels, "requests_failed"], seen.failed)
                    if seen.difference is not None:
                        distance.add_metric(labels, seen.difference)
        return (ready, planned, loaded, swaps, polls, age, queued, rows, shadow, distance)
