"""The beginning of a window, carried to another process as JSON: what counts is not changed by it."""

from __future__ import annotations

import json
from datetime import timedelta
from math import inf
from typing import Any

from airflow_provider_xops.serving.targets._own_replica import (
    Counted,
    counted_from_json,
    counted_to_json,
    difference,
)
from airflow_provider_xops.serving.targets._v2_client import Counted as V2Counted
from airflow_provider_xops.serving.targets._v2_client import Loaded
from airflow_provider_xops.serving.targets._v2_figures import Mark
from tests.unit.registry.builders import AS_OF


def carried(content: Any) -> Any:
    """As through the triggerer; nothing that JSON does not have."""
    return json.loads(json.dumps(content, allow_nan=False))


def test_the_counters_of_own_servers() -> None:
    before = {
        "http://a": {
            1: Counted(requests=100, errors=2, within={0.005: 60, 0.05: 99, inf: 100}),
            2: Counted(requests=7, errors=0, within={0.005: 7, 0.05: 7, inf: 7}),
        },
        "http://b": {},
    }
    now = {
        "http://a": {2: Counted(requests=27, errors=1, within={0.005: 17, 0.05: 27, inf: 27})},
        "http://b": {2: Counted(requests=3, errors=0, within={0.005: 0, 0.05: 3, inf: 3})},
    }

    again = counted_from_json(carried(counted_to_json(before)))

    assert again == before
    assert difference(again, now) == difference(before, now)
    assert (difference(again, now)[2].requests, difference(again, now)[2].errors) == (23, 1)


def test_the_mark_of_v2_servers() -> None:
    class Server:
        def loaded(self, name: str) -> Loaded:
            return Loaded(version=2, platform="xops:abc")

        def counted(self, name: str) -> V2Counted:
            return V2Counted(requests=15, errors=4)

    known = (Loaded(version=2, platform="xops:abc"), V2Counted(requests=5, errors=1))
    mark = Mark(AS_OF, (known, (None, None), (known[0], None)))

    again = Mark.from_json(carried(mark.to_json()))

    assert again == mark
    servers: Any = (Server(),) * 3
    found = again.until(servers, "late", as_of=AS_OF + timedelta(seconds=30))
    assert (found.versions[2].requests, found.versions[2].errors, found.seconds) == (10, 3, 30)
