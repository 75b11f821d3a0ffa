"""Suggested preparation steps: what they say, and that the preparation takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from airflow_provider_xops.data.preparation import prepare
from airflow_provider_xops.quality.profiling.steps import steps_text, suggest_steps
from tests.unit.quality.profiling.frames import profiled

ROWS = 500


def messy() -> pa.Table:
    """A column for each kind of step."""
    random = np.random.default_rng(3)
    amounts = random.normal(100, 10, ROWS)
    amounts[:2] = 1e6
    heavy = random.normal(0, 1, ROWS)
    heavy[:50] = random.normal(0, 1e4, 50)
    return pa.table(
        {
            "count": [str(number) for number in random.integers(0, 10**6, ROWS)],
            "price": [f"{number:.2f}" for number in random.random(ROWS)],
            "zip": [f"0{number:04d}" for number in random.integers(0, 9999, ROWS)],
            "amount": amounts,
            "heavy": heavy,
            "gaps": pa.array(random.normal(5, 1, ROWS), mask=random.random(ROWS) < 0.1),
            "same": ["x"] * ROWS,
        }
    )


def by_kind(steps: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        found.setdefault(step["step"], []).append(step)
    return found


def test_each_trouble_suggests_its_step_with_a_reason() -> None:
    steps = suggest_steps(profiled(messy()))
    found = by_kind(steps)

    assert [step["columns"] for step in found["cast"]] == [{"count": "int64"}, {"price": "float64"}]
    assert found["drop"][0]["columns"] == ["same"]
    assert list(found["clip"][0]["columns"]) == ["amount"]
    assert list(found["impute"][0]["columns"]) == ["gaps"]
    assert found["bin"][0]["column"] == "heavy"
    assert all(any(letter.isdigit() for letter in step["reason"]) for step in steps)


def test_a_code_with_leading_zeros_stays_text() -> None:
    assert all("zip" not in step.get("columns", {}) for step in suggest_steps(profiled(messy())))


def test_whole_duplicates_and_repeated_keys_suggest_two_kinds_of_deduplication() -> None:
    times = pa.array(range(ROWS), pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))
    keys = [f"k{number}" for number in range(ROWS - 2)] + ["k0", "k1"]
    once = pa.table(
        {"key": keys, "at": times.take(pa.array([5] * ROWS)), "n": [number % 7 for number in range(ROWS)]}
    )
    repeated = pa.concat_tables([once, once.slice(0, 1)])

    found = by_kind(suggest_steps(profiled(repeated)))["deduplicate"]

    assert "keys" not in found[0]
    assert "1 of 501 rows" in found[0]["reason"]
    assert (found[1]["keys"], found[1]["order_by"]) == (["key"], ["at desc"])


def test_the_preparation_takes_the_suggested_steps() -> None:
    document = profiled(messy())
    steps = yaml.safe_load(steps_text(document, suggest_steps(document)))

    prepared = prepare(steps, {"rows": messy().schema})

    assert prepared is not None


def test_few_rows_suggest_nothing() -> None:
    assert suggest_steps(profiled(messy().slice(0, 10))) == []
