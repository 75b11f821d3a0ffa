"""Control charts of the flights table: what no rule on single values can see.

A plan is plain data; it is read when the task runs.
"""

from __future__ import annotations

from typing import Any

__all__ = ["flights"]

# Miles over minutes in the air. Schedules, routes and cancellations hardly move it, so what moves it is
# either the jet stream (a few percent over weeks) or a unit that has changed (at once, and by a lot).
GROUND_SPEED = (
    "SELECT 60.0 * sum(distance) / sum(air_time) FROM dataset WHERE air_time IS NOT NULL AND distance > 0"
)


def flights() -> dict[str, Any]:
    """Ground speed against its own past; the number of flights against that of the same weekday."""
    return {
        "charts": [
            {
                "metric": "sql:ground_speed",
                "rules": ["nelson_1"],
                "baseline": {"kind": "rolling", "points": 60},
                "min_points": 15,
            },
            {
                "metric": "row_count",
                "rules": ["nelson_1"],
                "strata": "weekday",
                "timezone": "America/New_York",
                "sides": "lower",
                "min_points": 10,
            },
        ],
        "causes": [
            {
                "start": "2013-02-08",
                "end": "2013-02-09",
                "reason": "blizzard: the airports were closed",
                "metric": "row_count",
            },
        ],
        "metrics": {"sql": {"ground_speed": GROUND_SPEED}},
    }
