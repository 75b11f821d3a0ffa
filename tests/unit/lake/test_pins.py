"""Pins: who needs which version, told once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from airflow_provider_xops.errors import LakeError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.pins import pin, pins
from airflow_provider_xops.records import Actor, DatasetRef


def ref(lake: Lake, table: str, version: int) -> DatasetRef:
    return DatasetRef(lake_id=lake.lake_id, table=table, table_uuid=f"uuid-{table}", version=version)


def test_pins_are_listed_by_table_and_version(lake: Lake, actor: Actor, as_of: datetime) -> None:
    made = [
        pin(lake, ref(lake, table, version), reason="training", holder=holder, actor=actor, as_of=as_of)
        for table, version, holder in [
            ("weather", 1, "a"),
            ("flights", 7, "b"),
            ("flights", 3, "c"),
            ("flights", 3, "a"),
        ]
    ]

    assert pins(lake, "flights") == [made[3], made[2], made[1]]
    assert pins(lake) == [made[3], made[2], made[1], made[0]]
    assert pins(lake, "planes") == []


def test_the_same_pin_twice_is_one(lake: Lake, actor: Actor, as_of: datetime) -> None:
    for when in (as_of, as_of.replace(year=2027)):
        pin(lake, ref(lake, "flights", 3), reason="training", holder="a", actor=actor, as_of=when)

    assert [each.recorded_at for each in pins(lake)] == [as_of]


def test_a_version_of_another_lake_cannot_be_pinned(lake: Lake, actor: Actor, as_of: datetime) -> None:
    other = replace(ref(lake, "flights", 3), lake_id="another")

    with pytest.raises(LakeError) as caught:
        pin(lake, other, reason="training", holder="a", actor=actor, as_of=as_of)

    assert caught.value.code == "lake.other_uuid"
    assert pins(lake) == []
