"""Guessing renames from two profiles."""

from __future__ import annotations

from airflow_provider_xops.quality.profiling.renames import probable_renames
from tests.unit.quality.profiling.frames import flights, profiled


def test_columns_of_the_same_content_are_probably_renamed() -> None:
    before = profiled(flights())
    renamed = flights(seed=8).rename_columns(
        ["id", "arr_delay", "capacity", "airline", "tail_number", "is_late", "at", "day", "source"]
    )

    assert probable_renames(before, profiled(renamed)) == {
        "delay": "arr_delay",
        "seats": "capacity",
        "carrier": "airline",
        "tail": "tail_number",
        "late": "is_late",
    }


def test_a_column_of_other_content_or_type_is_another_one() -> None:
    table = flights()
    other = table.drop_columns(["delay", "carrier"])
    other = other.append_column("price", table["seats"].cast("double"))
    other = other.append_column("code", table["tail"])

    assert probable_renames(profiled(table), profiled(other)) == {}


def test_two_equal_candidates_are_no_answer() -> None:
    before = profiled(flights().select(["id", "delay"]))
    table = flights().select(["id", "delay"])
    after = (
        table.drop_columns(["delay"]).append_column("a", table["delay"]).append_column("b", table["delay"])
    )
    document = profiled(after)
    document["columns"][2]["name"], document["columns"][1]["name"] = "b", "a"

    found = probable_renames(before, document)

    assert found in ({"delay": "a"}, {})  # the place decides, or nothing
