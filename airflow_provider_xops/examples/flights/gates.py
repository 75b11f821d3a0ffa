"""When a model of late arrivals is good enough, and how that is measured.

``POLICY`` names the function that gives the gates, which stand in ``gates.yaml`` beside this module. ``PLAN``
resamples whole days: flights of one day share their weather, so they are not independent, and an interval
that took them for it would be too narrow.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

__all__ = ["PLAN", "POLICY", "policy"]

POLICY = "airflow_provider_xops.examples.flights.gates:policy"
PLAN: dict[str, Any] = {
    "cluster": "__partition__",
    "slices": {"by": ["origin"], "min_rows": 200},
    "robustness": {
        "perturbations": ["missing", "noise"],
        "levels": [0.1, 0.3],
        "repeats": 2,
        "max_rows": 4000,
    },
}


def policy() -> Any:
    """The gates that a model of late arrivals must pass."""
    import yaml

    return yaml.safe_load(files(__package__).joinpath("gates.yaml").read_text(encoding="utf-8"))
