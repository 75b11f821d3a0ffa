"""A suite of which half fails on every table of days."""

from __future__ import annotations

from typing import Any


def half() -> list[dict[str, Any]]:
    return [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "distance"}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "tail", "value_set": ["none"]}},
    ]
