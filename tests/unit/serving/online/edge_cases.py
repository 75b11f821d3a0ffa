"""The application without a network: small models, requests in pieces, answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.records import Variant
from airflow_provider_xops.serving.online.app import Edge, make_app
from airflow_provider_xops.serving.online.auth import Guard
from airflow_provider_xops.serving.online.fleet import Fleet
from airflow_provider_xops.serving.online.limits import Limits, Workers
from airflow_provider_xops.serving.online.metrics import Figures
from airflow_provider_xops.serving.online.prediction_log import LoggedBatch, LogStats
from airflow_provider_xops.serving.online.scoring import Scorer
from airflow_provider_xops.serving.online.site import Served, Site
from airflow_provider_xops.serving.online.variants import Feature, FeatureKind, LoadedModel
from airflow_provider_xops.training.metrics import Task
from tests.unit.registry.builders import AS_OF
from tests.unit.serving.online.fleet_cases import Shelf, loaded_model, plan, primary

MIXED = (
    Feature(name="distance", kind=FeatureKind.NUMBER),
    Feature(name="carrier", kind=FeatureKind.TEXT),
    Feature(name="at", kind=FeatureKind.TIME),
)
NUMBERS = (Feature(name="a", kind=FeatureKind.NUMBER), Feature(name="b", kind=FeatureKind.NUMBER))


class Sees:
    """A classifier that keeps the frames it saw; rows whose first column is above zero are of class 1."""

    def __init__(self, classes: Sequence[Any] = (0, 1)) -> None:
        self.classes_ = np.asarray(classes)
        self.frames: list[pd.DataFrame] = []
        self.raises: Exception | None = None
        self.before: Callable[[], None] | None = None

    def predict_proba(self, frame: pd.DataFrame) -> Any:
        if self.before is not None:
            self.before()
        if self.raises is not None:
            raise self.raises
        self.frames.append(frame)
        first = pd.to_numeric(frame.iloc[:, 0], errors="coerce").to_numpy(dtype=float)
        positive = np.where(first > 0, 0.75, 0.25)
        return np.column_stack([1 - positive, positive])

    def predict(self, frame: pd.DataFrame) -> Any:
        if self.raises is not None:
            raise self.raises
        first = pd.to_numeric(frame.iloc[:, 0], errors="coerce").to_numpy(dtype=float)
        return self.classes_[(first > 0).astype(int)]


@dataclass
class Noted:
    """A prediction log that keeps what it is offered, in memory."""

    overflow: str = "drop"
    room: bool = True
    table: str = "noted"
    entries: list[LoggedBatch] = field(default_factory=list)

    def has_room(self, rows: int) -> bool:
        return self.room

    def offer(self, entry: LoggedBatch) -> bool:
        self.entries.append(entry)
        return True

    def stats(self) -> LogStats:
        rows = sum(entry.logged_rows for entry in self.entries)
        return LogStats(
            queued=rows, written=0, dropped=0, flushes=0, failed_flushes=0, oldest_seconds=None,
            last_error=None,
        )  # fmt: skip


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Desk:
    """A whole application over models of one's choice; ``ask`` sends it a request."""

    def __init__(
        self,
        *,
        features: Sequence[Feature] = NUMBERS,
        estimator: Any = None,
        names: Sequence[str] = ("late",),
        versions: Sequence[Variant] | None = None,
        limits: Limits | None = None,
        guard: Guard | None = None,
        extra: Any = "refuse",
        keep: Sequence[str] = (),
        log: Any = None,
        shadows: Any = None,
        ready: bool = True,
        access: Any = None,
    ) -> None:
        self.estimator = estimator if estimator is not None else Sees()
        self.limits = limits or Limits(threads=2, request_seconds=20)
        self.figures = Figures()
        self.log = log
        classes = getattr(self.estimator, "classes_", None)

        def load(model: str, variant: Variant, /) -> LoadedModel:
            return loaded_model(
                variant.version, features=tuple(features), estimator=self.estimator,
                task=Task.REGRESSION if classes is None else Task.CLASSIFICATION,
                classes=None if classes is None else tuple(classes.tolist()),
            )  # fmt: skip

        serving = []
        for name in names:
            fleet = Fleet(load, clock=lambda: AS_OF)
            if ready:
                fleet.apply(plan(*(versions or (primary(1),))))
            scorer = Scorer(
                name, fleet, self.figures, max_rows=self.limits.rows, extra=extra, prediction_log=log,
                shadows=shadows, keep_columns=keep, clock=lambda: AS_OF,
            )  # fmt: skip
            serving.append(Served(name=name, model=name, alias="champion", fleet=fleet, scorer=scorer))
        self.site = Site(
            server="gate-1", serving=serving, figures=self.figures, clock=lambda: AS_OF, limits=self.limits,
            guard=guard or Guard(environ={}),
        )  # fmt: skip
        self.workers = Workers(self.limits)
        self.app: Edge = make_app(self.site, self.workers, access)

    def ask(self, path: str, body: Any = None, **options: Any) -> Reply:
        """One request, sent and answered."""
        return asyncio.run(self.asked(path, body, **options))

    def several(self, *asks: Callable[[], Awaitable[Any]]) -> list[Any]:
        """Requests at the same time."""

        async def together() -> list[Any]:
            return list(await asyncio.gather(*(each() for each in asks)))

        return asyncio.run(together())

    async def asked(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        chunks: Sequence[bytes] | None = None,
        gone: bool = False,
        query: str = "",
    ) -> Reply:
        """A request; ``body``: bytes, or what becomes JSON. ``chunks`` come one by one, without a length."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if chunks is None and content is not None:
            sent.setdefault("content-length", str(len(content)))
            sent.setdefault("content-type", "application/json")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "path": path,
            "raw_path": path.encode(), "root_path": "", "query_string": query.encode(), "scheme": "http",
            "method": method or ("GET" if content is None and chunks is None else "POST"),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080), "state": {},
        }  # fmt: skip
        pieces = list(chunks) if chunks is not None else [content or b""]
        messages = [
            {"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1 or gone}
            for place, piece in enumerate(pieces)
        ]
        if gone:
            messages.append({"type": "http.disconnect"})
        answered: list[Any] = []

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(3600)
            raise AssertionError

        async def send(message: Any) -> None:
            answered.append(message)

        await self.app(scope, receive, send)
        if not answered:
            return Reply(0, {}, b"")
        start, *rest = answered
        return Reply(
            start["status"],
            {name.decode().lower(): value.decode() for name, value in start["headers"]},
            b"".join(each.get("body", b"") for each in rest),
        )


__all__ = ["MIXED", "NUMBERS", "Desk", "Noted", "Reply", "Sees", "Shelf"]
