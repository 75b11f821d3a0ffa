"""``TransformDatasetOperator`` by declared steps: from a list, a file or a function, rendered or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators.data import TransformDatasetOperator
from airflow_provider_xops.version_compat import AirflowFailException
from tests.unit.lake.helpers import put, rows_of, segment

STEPS = [{"step": "impute", "columns": {"n": {"value": 0}}}]
MakeContext = Callable[..., Any]


def steps() -> list[dict[str, Any]]:
    """Steps by a function."""
    return STEPS


@pytest.fixture(autouse=True)
def table(lake: Lake) -> None:
    put(lake, "t", segment("d1", "1", {"n": [1, None]}))


@pytest.fixture
def run(make_context: MakeContext) -> Callable[..., dict[str, Any]]:
    def run(**options: Any) -> dict[str, Any]:
        given = {"task_id": "x", "table": "out", "inputs": {"t": "t"}, "partition": "d1", **options}
        found: dict[str, Any] = TransformDatasetOperator(**given).execute(make_context())
        return found

    return run


def test_steps_are_taken_from_wherever_they_are(
    lake: Lake, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "steps.yaml").write_text("steps:\n- {step: impute, columns: {n: {value: 0}}}\n")
    first = run(steps=STEPS)
    assert (first["reused"], first["note"]) == (False, "1 impute: 1 filled in n")
    assert rows_of(lake, "out__raw") == {"d1": [(0,), (1,)]}
    for given in (str(tmp_path / "steps.yaml"), f"{__name__}:steps", steps, str(STEPS)):
        assert run(steps=given)["reused"], given


def test_a_step_that_does_not_fit_fails_the_task_for_good(run: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.step.*step 1 \(drop\).*'m'"):
        run(steps=[{"step": "drop", "columns": ["m"]}])
    with pytest.raises(AirflowFailException, match=r"argument\.transform"):
        run(steps=[])


def test_a_result_with_a_new_column_is_taken_where_the_policy_says_so(
    lake: Lake, run: Callable[..., dict[str, Any]]
) -> None:
    run(steps=STEPS)
    more = [*STEPS, {"step": "derive", "columns": {"m": "n * 2"}}]
    with pytest.raises(AirflowFailException, match=r"data\.schema_mismatch"):
        run(steps=more)
    run(steps=more, on_schema_change={"added": "evolve"})
    assert rows_of(lake, "out__raw") == {"d1": [(0, 0), (1, 2)]}
