"""Steps run by ``transform``: once, in a box, point in time, and with what they changed in the record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.data.transform import TransformInput, transform
from airflow_provider_xops.errors import ArgumentError, DataError
from airflow_provider_xops.lake.commit import CommitResult
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import table_exists
from airflow_provider_xops.records import Actor, DatasetRef
from tests.unit.lake.helpers import put, rows_of, segment, user

Make = Callable[..., CommitResult]
DAYS = ["2013-01-01", "2013-01-02"]
FILL = [{"step": "impute", "columns": {"delay": {"value": 0}}}]
LEARN = [{"step": "impute", "columns": {"delay": {"method": "mean"}}, "fit": "past"}]


@pytest.fixture
def make(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Make:
    """``transform`` by steps into the table ``result``, each call by a later attempt."""

    def make(inputs: dict[str, Any], steps: Any, **options: Any) -> CommitResult:
        options = {"table": "result", "actor": make_actor(), **options}
        return transform(lake, inputs, steps=steps, as_of=as_of, **options)

    return make


@pytest.fixture
def flights(lake: Lake) -> DatasetRef:
    """Two days of flights."""
    first = segment(DAYS[0], "a", {"flight": [1, 2, 2], "delay": [None, 4.0, 4.0]})
    second_rows = pa.table({"flight": [3], "delay": pa.array([None], pa.float64())})
    second = segment(DAYS[1], "b", second_rows)
    return put(lake, "flights", first, second).record.ref


def test_steps_are_run_once_and_reasons_do_not_count(lake: Lake, flights: DatasetRef, make: Make) -> None:
    steps: list[dict[str, Any]] = [{"step": "deduplicate"}, *FILL]
    first = make({"f": flights}, steps, partitions=DAYS)
    assert rows_of(lake, "result") == {DAYS[0]: [(1, 0.0), (2, 4.0)], DAYS[1]: [(3, 0.0)]}
    assert first.record.note == "1 deduplicate: 4 -> 3 rows; 2 impute: 2 filled in delay"
    again = make({"f": flights}, [{**step, "reason": "so"} for step in steps], partitions=DAYS)
    assert again.reused
    assert again.record.note == first.record.note
    other = make({"f": flights}, FILL, partitions=DAYS)
    assert not other.reused


def test_a_figure_is_learned_from_the_partitions_that_are_named(
    lake: Lake, flights: DatasetRef, make: Make
) -> None:
    past = TransformInput(flights, (DAYS[0],))
    record = make({"f": flights, "past": past}, LEARN, partitions=DAYS).record
    assert rows_of(lake, "result")[DAYS[1]] == [(3, 4.0)]
    assert set(record.parents) == {flights}
    # then: the input that figures are learned from is part of what decides
    newer = put(lake, "flights", segment(DAYS[0], "c", {"flight": [1], "delay": [6.0]}), actor=user(2))
    changed = {"f": flights, "past": TransformInput(newer.record.ref, (DAYS[0],))}
    assert not make(changed, LEARN, partitions=[DAYS[1]]).reused
    assert rows_of(lake, "result")[DAYS[1]] == [(3, 6.0)]


def test_what_would_learn_from_the_partition_at_hand_is_refused(flights: DatasetRef, make: Make) -> None:
    with pytest.raises(ArgumentError) as caught:
        make({"f": flights, "past": flights}, LEARN, partitions=DAYS)
    assert caught.value.code == "argument.fit"
    assert make({"f": flights, "past": TransformInput(flights)}, LEARN, partitions=DAYS).record.rows == 4


def test_a_mistake_is_found_before_any_row_is_read(lake: Lake, flights: DatasetRef, make: Make) -> None:
    with pytest.raises(ArgumentError) as caught:
        make({"f": flights}, [*FILL, {"step": "drop", "columns": ["tailnum"]}])
    assert caught.value.context == {"step": 2, "kind": "drop"}
    assert "'tailnum'" in caught.value.what
    assert not table_exists(lake, "result")


def test_a_value_that_must_not_be_there_stops_the_task(lake: Lake, make: Make) -> None:
    ref = put(lake, "texts", segment("all", "1", {"v": ["1", "x"]})).record.ref
    with pytest.raises(DataError) as caught:
        make({"t": ref}, [{"step": "cast", "columns": {"v": "int64"}}])
    assert (caught.value.code, caught.value.context["count"]) == ("data.cast", 1)
    assert not table_exists(lake, "result")


def test_exactly_one_of_the_three_ways(flights: DatasetRef, make: Make) -> None:
    for steps, sql in ((FILL, "SELECT 1"), (None, None)):
        with pytest.raises(ArgumentError) as caught:
            make({"f": flights}, steps, sql=sql)
        assert caught.value.code == "argument.transform"


def test_weather_is_joined_as_it_was_known_then(lake: Lake, make: Make) -> None:
    noon, kind = datetime(2013, 1, 2, 0, 30, tzinfo=UTC), pa.timestamp("us", "UTC")
    flights = segment(DAYS[1], "f", pa.table({"t": pa.array([noon], kind), "origin": ["JFK"]}))
    ref = put(lake, "departures", flights).record.ref
    hours = [noon - timedelta(minutes=31), noon + timedelta(minutes=1), noon - timedelta(hours=9)]
    weather = [
        segment(
            day, day, pa.table({"t": pa.array(times, kind), "origin": ["JFK"] * len(times), "c": degrees})
        )
        for day, times, degrees in (
            (DAYS[0], hours[:1] + hours[2:], [1.0, 3.0]),
            (DAYS[1], hours[1:2], [2.0]),
        )
    ]
    inputs = {"f": ref, "w": TransformInput(put(lake, "weather", *weather).record.ref)}
    step = {"step": "as_of_join", "with": "w", "on": "t", "by": ["origin"], "tolerance": "2 hours"}
    # the day before has the newest hour, the later minute is not known yet
    make(inputs, [step], partitions=[DAYS[1]])
    assert rows_of(lake, "result") == {DAYS[1]: [(noon, "JFK", 1.0)]}


def test_steps_see_a_column_that_came_later(lake: Lake, flights: DatasetRef, make: Make) -> None:
    rows = {"flight": [9], "delay": [1.0], "tail": ["N1"]}
    newer = put(lake, "flights", segment("2013-01-03", "x", rows), evolve={"added": "evolve"}).record.ref
    steps = [{"step": "impute", "columns": {"tail": {"value": "?"}}}, {"step": "drop", "columns": ["delay"]}]
    make({"f": newer}, steps)
    assert rows_of(lake, "result")["all"] == [(1, "?"), (2, "?"), (2, "?"), (3, "?"), (9, "N1")]


@pytest.mark.parametrize(
    "where",
    ["(SELECT count(*) FROM glob('/etc/*')) > 0", "EXISTS (FROM '/etc/passwd')", "getenv('HOME') <> ''"],
)
def test_an_expression_reaches_nothing_but_the_inputs(flights: DatasetRef, make: Make, where: str) -> None:
    with pytest.raises(ArgumentError):
        make({"f": flights}, [{"step": "filter", "where": where}])
