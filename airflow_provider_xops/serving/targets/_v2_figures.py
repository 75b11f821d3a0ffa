"""How many requests the V2 servers have answered in a window, from the counters that they show.

For the V2 target. The counters are of a name, not of a version, so a server says something of a version only
if it served that one at the beginning and at the end.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from airflow_provider_xops.serving.targets._v2_client import Counted, Loaded, V2Server
from airflow_provider_xops.serving.targets.base import Observation, VersionFigures

__all__ = ["Mark"]


@dataclass(frozen=True)
class Mark:
    """The beginning of a window: what each server serves, and has counted so far."""

    as_of: datetime
    servers: tuple[tuple[Loaded | None, Counted | None], ...]

    @classmethod
    def of(cls, servers: Sequence[V2Server], name: str, *, as_of: datetime) -> Mark:
        """Ask the servers now.

        :raises UnavailableError: one did not answer.
        """
        return cls(as_of, tuple((server.loaded(name), server.counted(name)) for server in servers))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        said = [[each and asdict(each) for each in pair] for pair in self.servers]
        return {"as_of": self.as_of.isoformat(), "servers": said}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Mark:
        """The mark that :meth:`to_json` has written."""
        return cls(
            datetime.fromisoformat(content["as_of"]),
            tuple(
                (Loaded(**loaded) if loaded else None, Counted(**counted) if counted else None)
                for loaded, counted in content["servers"]
            ),
        )

    def until(self, servers: Sequence[V2Server], name: str, *, as_of: datetime) -> Observation:
        """What came since. A server that was swapped or restarted meanwhile is left out.

        :raises UnavailableError: one did not answer.
        """
        requests: collections.Counter[int] = collections.Counter()
        errors: collections.Counter[int] = collections.Counter()
        for server, (loaded, counted) in zip(servers, self.servers, strict=True):
            now = server.counted(name)
            if loaded is None or loaded.version is None or server.loaded(name) != loaded:
                continue
            if now is None or counted is None:
                continue
            if now.requests < counted.requests or now.errors < counted.errors:
                continue
            requests[loaded.version] += now.requests - counted.requests
            errors[loaded.version] += now.errors - counted.errors
        figures = {
            version: VersionFigures(requests=count, errors=errors[version])
            for version, count in requests.items()
        }
        return Observation(versions=figures, seconds=(as_of - self.as_of).total_seconds())
