"""Expected, missing, late and thin partitions; and what one look of a sensor finds."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.quality.arrival_schedule import ArrivalSchedule, load_schedule
from airflow_provider_xops.quality.freshness import (
    VolumeRule,
    freshness,
    open_freshness_incidents,
    volume,
)
from airflow_provider_xops.quality.waiting import Look, Wait, look, open_late_incidents
from airflow_provider_xops.records import Incident, Outcome
from tests.unit.lake.helpers import put, segment, user
from tests.unit.quality.days import AS_OF, day, load, rows, utc

DAILY = ArrivalSchedule(every="daily", grace="6h")


def names(schedule: ArrivalSchedule, as_of: str, *, since: str | None = None) -> list[str]:
    found = schedule.expected(since=utc(since) if since else None, as_of=utc(as_of))
    return [one.partition for one in found]


@pytest.mark.parametrize(
    ("fields", "as_of", "expected"),
    [
        ({"start": "2013-01-30"}, "2013-02-01T00:00", ["2013-01-30", "2013-01-31"]),
        ({"start": "2013-01-30"}, "2013-01-31T23:59", ["2013-01-30"]),
        (
            {"every": "hourly", "start": "2013-01-01T23"},
            "2013-01-02T01:30",
            ["2013-01-01T23", "2013-01-02T00"],
        ),
        ({"every": "monthly", "start": "2013-01-15"}, "2013-03-01", ["2013-01", "2013-02"]),
        ({"every": "weekly", "start": "2013-01-09"}, "2013-01-21", ["2013-01-07", "2013-01-14"]),
        (
            {"every": "15m", "start": "2013-01-01"},
            "2013-01-01T00:30",
            ["2013-01-01T00:00", "2013-01-01T00:15"],
        ),
        ({"cron": "0 6 * * 1-5", "start": "2013-01-04"}, "2013-01-08T06:00", ["2013-01-04", "2013-01-07"]),
        ({"start": "2013-01-01", "weekdays": ["mon"]}, "2013-01-15", ["2013-01-07", "2013-01-14"]),
        ({"start": "2013-01-01", "holidays": ["2013-01-02"]}, "2013-01-04", ["2013-01-01", "2013-01-03"]),
        ({"start": "2013-01-01", "partition_format": "%Y%m%d"}, "2013-01-02", ["20130101"]),
    ],
)  # fmt: skip
def test_expected_partitions(fields: dict[str, Any], as_of: str, expected: list[str]) -> None:
    assert names(ArrivalSchedule(**fields), as_of) == expected


def test_days_are_local_and_as_long_as_they_are() -> None:
    # given the night in which New York's clocks go forward
    schedule = ArrivalSchedule(timezone="America/New_York", grace="6h", start="2013-03-09")

    found = schedule.expected(since=None, as_of=utc("2013-03-12"))

    assert [(one.partition, one.due) for one in found] == [
        ("2013-03-09", utc("2013-03-10T11:00")), ("2013-03-10", utc("2013-03-11T10:00")),
    ]  # fmt: skip
    assert found[1].ends - found[1].begins == timedelta(hours=23)


def test_hour_that_comes_twice_is_one_partition() -> None:
    schedule = ArrivalSchedule(every="hourly", timezone="America/New_York", start="2013-11-03T00")

    found = schedule.expected(since=None, as_of=utc("2013-11-03T08:00"))

    assert [one.partition for one in found] == ["2013-11-03T00", "2013-11-03T01", "2013-11-03T02"]
    assert found[1].ends == utc("2013-11-03T07:00")


@pytest.mark.parametrize(
    "fields",
    [{"every": "often"}, {"every": "0s"}, {"cron": "x"}, {"timezone": "Mars"}, {"grace": "soon"},
     {"weekdays": ["someday"]}, {"weekdays": []}, {"holidays": ["x"]}, {"start": "x"}, {"interval": "1d"}],
)  # fmt: skip
def test_unusable_schedule_is_refused_when_it_is_read(fields: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        ArrivalSchedule.from_json(fields)

    assert caught.value.code == "argument.schedule"


def test_schedule_survives_json_and_is_given_in_several_forms() -> None:
    schedule = ArrivalSchedule(every=timedelta(minutes=15), grace=timedelta(hours=1), start=date(2013, 1, 1))
    as_of = "2013-01-01T01:00"

    assert names(ArrivalSchedule.from_json(schedule.to_json()), as_of) == names(schedule, as_of)
    assert load_schedule("daily") == ArrivalSchedule(every="daily")
    assert load_schedule("0 6 * * *") == ArrivalSchedule(cron="0 6 * * *")
    assert load_schedule(timedelta(hours=1)) == ArrivalSchedule(every=timedelta(hours=1))
    assert load_schedule(None) is None


def test_years_of_minutes_are_a_mistake() -> None:
    with pytest.raises(ArgumentError, match="periods lie between"):
        names(ArrivalSchedule(every="1m", start="1970-01-01"), "2013-01-01")


def test_missing_late_and_not_due_are_three_things(lake: Lake) -> None:
    # given days 0 and 1 in time, 3 a day late, and 4 and 5 not yet
    for number, arrived in ((0, "2013-01-02T01:00"), (1, "2013-01-03T06:00"), (3, "2013-01-06T05:00")):
        load(lake, [(day(number), 1.0)], as_of=utc(arrived))

    state = freshness(lake, "t__raw", DAILY, as_of=utc("2013-01-06T06:00"))

    assert [(one.partition, one.due_at) for one in state.missing] == [
        (day(2), utc("2013-01-04T06:00")), (day(4), utc("2013-01-06T06:00")),
    ]  # fmt: skip
    assert [(one.partition, one.arrived_at) for one in state.late] == [(day(3), utc("2013-01-06T05:00"))]
    assert (state.latest, state.expected, state.present, state.fresh) == (day(3), 5, 3, False)
    assert (state.lag_seconds, state.age_seconds) == (2 * 86_400 - 18 * 3600, 3600)


def test_a_correction_does_not_make_a_partition_late(lake: Lake) -> None:
    load(lake, [(day(0), 1.0)], as_of=utc("2013-01-02T01:00"))
    load(lake, [(day(0), 2.0)], as_of=utc("2013-01-09T01:00"))

    state = freshness(lake, "t__raw", DAILY, as_of=utc("2013-01-02T12:00"))

    assert (state.fresh, state.late, state.missing) == (True, (), ())


def test_what_arrived_later_is_not_seen(lake: Lake) -> None:
    load(lake, [(day(0), 1.0)], as_of=utc("2013-01-02T08:00"))

    state = freshness(lake, "t__raw", ArrivalSchedule(start=day(0)), as_of=utc("2013-01-02T07:00"))

    assert ([one.partition for one in state.missing], state.age_seconds) == ([day(0)], None)


def test_arrival_is_in_the_table_where_its_record_is_lost(lake: Lake) -> None:
    load(lake, [(day(0), 1.0)], as_of=utc("2013-01-02T01:00"))
    for path in list(lake.storage.list("_xops/evidence/versions/")):
        lake.storage.delete(path)

    state = freshness(lake, "t__raw", DAILY, as_of=utc("2013-01-02T12:00"))

    assert (state.fresh, state.age_seconds) == (True, 11 * 3600)


def test_table_that_does_not_exist_has_everything_missing(lake: Lake) -> None:
    state = freshness(lake, "nothing", ArrivalSchedule(start=day(0)), as_of=utc("2013-01-03"))

    assert [one.partition for one in state.missing] == [day(0), day(1)]
    assert (state.latest, state.fresh) == (None, False)


def test_incidents_are_opened_once(lake: Lake) -> None:
    load(lake, [(day(0), 1.0)], as_of=utc("2013-01-05"))
    state = freshness(lake, "t__raw", DAILY, as_of=utc("2013-01-05"))
    thin = volume(lake, head(lake, "t__raw"), day(0), VolumeRule(minimum=10))

    opened = open_freshness_incidents(lake, state, [thin], actor=user(), as_of=AS_OF)
    again = open_freshness_incidents(lake, state, [thin], actor=user(), as_of=AS_OF + timedelta(days=1))

    assert sorted((one.incident, one.subject) for one in opened) == [
        ("late_partition", f"t__raw/{day(0)}"),
        ("missing_partition", f"t__raw/{day(1)}"),
        ("missing_partition", f"t__raw/{day(2)}"),
        ("unexpected_volume", f"t__raw/{day(0)}"),
    ]
    assert again == []


@pytest.mark.parametrize(
    ("rule", "outcome", "words"),
    [
        (VolumeRule(minimum=20), Outcome.FAILED, "4 rows, at least 20"),
        (VolumeRule(maximum=3), Outcome.FAILED, "4 rows, at most 3"),
        (VolumeRule(minimum=4, maximum=4), Outcome.PASSED, "4 rows"),
        (VolumeRule(min_share=0.5), Outcome.FAILED, "at least 5"),
        (VolumeRule(min_share=0.4, max_share=2), Outcome.PASSED, "4 rows"),
        (VolumeRule(max_share=0.1), Outcome.FAILED, "at most 1"),
        (VolumeRule(min_share=0.5, min_points=4), Outcome.NO_DATA, "too few"),
        (VolumeRule(min_share=0.5, same_weekday=True), Outcome.NO_DATA, "0 earlier"),
    ],
)
def test_volume_against_bounds_and_against_the_usual(
    lake: Lake, rule: VolumeRule, outcome: Outcome, words: str
) -> None:
    # given three earlier days with a median of ten rows, this one with four, and a later one
    counts = {day(0): 8, day(1): 10, day(2): 12, day(3): 4, day(4): 1000}
    put(lake, "t", *(segment(name, name, rows(1.0, count=count)) for name, count in counts.items()))

    found = volume(lake, head(lake, "t"), day(3), rule)

    assert (found.outcome, found.rows) == (outcome, 4)
    assert words in found.message


def test_volume_rule_that_bounds_nothing_is_refused(lake: Lake) -> None:
    for fields in ({}, {"minimum": 2, "maximum": 1}, {"min_share": 2, "max_share": 1}):
        with pytest.raises(ArgumentError, match=r"argument\.volume"):
            VolumeRule(**fields)
    with pytest.raises(NotFoundError):
        volume(lake, load(lake, [(day(0), 1.0)]), "2014-01-01", VolumeRule(minimum=1))


def seen(lake: Lake, wait: Wait, as_of: str) -> Look:
    found = look(lake, Wait.from_json(wait.to_json()), as_of=utc(as_of))
    assert Look.from_json(found.to_json()) == found
    return found


def test_look_waits_until_named_partitions_are_there(lake: Lake) -> None:
    wait = Wait(table="t__raw", partitions=(day(0), day(1)), since=utc("2013-01-02"))
    nothing = seen(lake, wait, "2013-01-02")
    assert str(nothing) == "there is no table t__raw: 2013-01-01, 2013-01-02 not there"

    load(lake, [(day(0), 1.0)], as_of=utc("2013-01-02"))
    waiting = seen(lake, wait, "2020-01-01")
    load(lake, [(day(1), 1.0)], as_of=utc("2013-01-03"))
    fresh = seen(lake, wait, "2013-01-03")

    assert (waiting.status, waiting.missing) == ("waiting", (day(1),))
    assert (fresh.status, fresh.missing, fresh.version) == ("fresh", (), 1)


def test_look_by_schedule_waits_for_the_newest_ended_period_and_knows_when_it_is_late(lake: Lake) -> None:
    wait = Wait(table="t__raw", schedule=DAILY, since=utc("2013-01-03T00:05"))

    assert seen(lake, wait, "2013-01-03T05:00").missing == (day(1),)
    assert seen(lake, wait, "2013-01-03T06:00").status == "waiting"
    late = seen(lake, wait, "2013-01-03T06:01")
    assert (late.status, late.due_at) == ("late", utc("2013-01-03T06:00"))
    (opened,) = open_late_incidents(lake, late, actor=user(), as_of=AS_OF)
    assert (opened.incident, opened.subject) == ("missing_partition", f"t__raw/{day(1)}")
    assert isinstance(lake.evidence.get(Incident.kind, opened.record_id), Incident)

    load(lake, [(day(1), 1.0)])
    assert seen(lake, wait, "2013-01-05").status == "fresh"


def test_look_by_age_is_at_the_newest_commit(lake: Lake) -> None:
    load(lake, [(day(0), 1.0)], as_of=utc("2013-01-02T00:00"))
    wait = Wait(table="t__raw", max_age=timedelta(hours=2), since=utc("2013-01-02"))

    assert seen(lake, wait, "2013-01-02T02:00").status == "fresh"
    assert seen(lake, wait, "2013-01-02T02:01").status == "waiting"


def test_wait_for_nothing_or_for_no_time_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"argument\.wait"):
        Wait(table="t", since=AS_OF)
    with pytest.raises(ArgumentError, match="nobody can say when partition eu"):
        Wait(table="t", partitions=("eu",), schedule=DAILY, since=AS_OF)


def test_hours_begin_where_the_zone_says() -> None:
    # given a zone that is five and a half hours ahead
    hourly = ArrivalSchedule(every="hourly", timezone="Asia/Kolkata")
    begins = utc("2013-02-02T23:30")

    (one, other) = hourly.expected(since=begins, as_of=utc("2013-02-03T01:30"))

    assert (one.begins, one.partition, one.due) == (begins, "2013-02-03T05", utc("2013-02-03T00:30"))
    assert other.partition == "2013-02-03T06"
    assert hourly.period_of("2013-02-03T05", begins) == one
