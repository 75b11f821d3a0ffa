"""Files into raw tables: once, as declared, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_xops.data.ingest import expand_partitions, ingest, recorded_schema
from airflow_provider_xops.errors import ArgumentError, DataError, SourceError, Superseded
from airflow_provider_xops.lake.commit import CommitResult
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import Actor, WriteMode

SCHEMA = {"flight": "int64", "carrier": "string"}
Load = Callable[..., CommitResult]


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Load:
    """``ingest`` into the table ``flights``, each call by a later attempt."""

    def load(sources: dict[str, Any], **options: Any) -> CommitResult:
        options = {"schema": SCHEMA, "actor": make_actor(), **options}
        return ingest(lake, options.pop("table", "flights"), sources, as_of=as_of, **options)

    return load


@pytest.fixture
def day(tmp_path: Path) -> Callable[..., str]:
    """Writes a CSV file of flights and gives its path."""

    def day(name: str, *flights: Any, carrier: str = "AA") -> str:
        path = tmp_path / "in" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("flight,carrier\n" + "".join(f"{flight},{carrier}\n" for flight in flights))
        return str(path)

    return day


def flights(lake: Lake, partition: str | None = None) -> list[int]:
    names = None if partition is None else [partition]
    found: list[int] = (
        scan(lake, head(lake, "flights__raw"), partitions=names).read_all().column("flight").to_pylist()
    )
    return found


def everything(lake: Lake) -> list[str]:
    return list(lake.storage.list(""))


def test_files_arrive_in_the_raw_table_with_their_sources(
    load: Load, lake: Lake, day: Callable[..., str]
) -> None:
    result = load({"2013-01-01": [day("a", 1, 2), day("b", 3)], "2013-01-02": day("c", 4)})
    record = result.record
    assert (record.table, record.partitions, record.rows) == ("flights__raw", ("2013-01-01", "2013-01-02"), 4)
    assert [source.name for source in record.sources] == ["a.csv", "b.csv", "c.csv"]
    assert flights(lake) == [1, 2, 3, 4]
    assert not table_exists(lake, "flights")


def test_the_same_files_are_not_loaded_again(load: Load, day: Callable[..., str]) -> None:
    first = load({"2013-01-01": day("a", 1)})
    again = load({"2013-01-01": day("a", 1)})
    assert again.reused
    assert again.record == first.record


def test_a_corrected_file_replaces_its_partition_only(
    load: Load, lake: Lake, day: Callable[..., str]
) -> None:
    load({"2013-01-01": day("a", 1), "2013-01-02": day("b", 2)})
    result = load({"2013-01-01": day("a", 7, 8), "2013-01-02": day("b", 2)})
    assert result.record.partitions == ("2013-01-01",)
    assert flights(lake) == [7, 8, 2]


def test_an_empty_file_empties_its_partition_and_is_no_failure(
    load: Load, lake: Lake, day: Callable[..., str], tmp_path: Path
) -> None:
    load({"2013-01-01": day("a", 1), "2013-01-02": day("b", 2)})
    (tmp_path / "empty.csv").write_bytes(b"")
    result = load({"2013-01-01": str(tmp_path / "empty.csv")})
    assert result.record.rows == 0
    assert flights(lake) == [2]


def test_an_orphan_of_an_older_attempt_is_superseded(
    load: Load, day: Callable[..., str], make_actor: Callable[..., Actor]
) -> None:
    load({"2013-01-01": day("a", 1)}, actor=make_actor(fence=20))
    with pytest.raises(Superseded):
        load({"2013-01-01": day("a", 2)}, actor=make_actor(fence=10))


class TestSchema:
    def test_the_first_load_learns_the_columns_and_later_loads_keep_them(
        self, load: Load, lake: Lake, day: Callable[..., str]
    ) -> None:
        load({"2013-01-01": day("a", 1)}, schema=None)
        assert recorded_schema(lake, "flights__raw") == SCHEMA
        with pytest.raises(SourceError) as caught:
            load({"2013-01-02": day("b", "x")}, schema=None)
        assert caught.value.code == "source.types"

    def test_a_retry_of_the_first_load_finds_it_done(self, load: Load, day: Callable[..., str]) -> None:
        load({"2013-01-01": day("a", 1)}, schema=None)
        assert load({"2013-01-01": day("a", 1)}, schema=None).reused

    def test_the_zone_of_local_times_is_recorded(self, load: Load, lake: Lake, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        zone = {"at": "timestamp[America/New_York]"}
        path.write_text("at\n2013-01-01 10:00\n")
        load({"d1": str(path)}, schema=zone)
        load({"d2": str(path)}, schema=None)
        times = scan(lake, head(lake, "flights__raw")).read_all().column("at").to_pylist()
        assert [time.isoformat() for time in times] == ["2013-01-01T15:00:00+00:00"] * 2

    def test_without_the_recorded_schema_the_tables_own_types_are_used(
        self, load: Load, lake: Lake, day: Callable[..., str]
    ) -> None:
        # given: a worker killed between the first commit and its schema
        record = load({"2013-01-01": day("a", 1)}).record
        lake.storage.delete(f"_xops/schemas/{record.table_uuid}.json")
        # then
        assert recorded_schema(lake, "flights__raw") == SCHEMA
        assert load({"2013-01-01": day("a", 1)}, schema=None).reused

    def test_a_first_load_without_rows_needs_a_schema(self, load: Load, lake: Lake, tmp_path: Path) -> None:
        (tmp_path / "empty.csv").write_text("flight,carrier\n")
        with pytest.raises(ArgumentError) as caught:
            load({"d": str(tmp_path / "empty.csv")}, schema=None)
        assert caught.value.code == "argument.schema_needed"
        assert load({"d": str(tmp_path / "empty.csv")}).record.rows == 0

    def test_a_schema_that_is_not_the_tables_is_refused(self, load: Load, day: Callable[..., str]) -> None:
        load({"2013-01-01": day("a", 1)})
        with pytest.raises(DataError) as caught:
            load({"2013-01-02": day("b", 2)}, schema={"flight": "string", "carrier": "string"})
        assert caught.value.code == "data.schema_mismatch"
        assert "flight" in caught.value.why


class TestModes:
    def test_appended_batches_stand_side_by_side_and_each_once(
        self, load: Load, lake: Lake, day: Callable[..., str]
    ) -> None:
        for _ in range(2):
            load({"all": day("a", 1)}, mode="append")
            load({"all": day("b", 2)}, mode="append")
        assert sorted(flights(lake)) == [1, 2]

    def test_a_named_batch_is_replaced_by_its_correction(
        self, load: Load, lake: Lake, day: Callable[..., str]
    ) -> None:
        load({"all": day("a", 1)}, mode="append", batch_id="2013-01-01")
        load({"all": day("b", 2)}, mode="append", batch_id="2013-01-02")
        load({"all": day("a", 9)}, mode="append", batch_id="2013-01-01")
        assert sorted(flights(lake)) == [2, 9]

    def test_merged_rows_replace_those_with_the_same_keys(
        self, load: Load, lake: Lake, day: Callable[..., str]
    ) -> None:
        load({"all": day("a", 1, 2)}, mode=WriteMode.MERGE, keys=["flight"])
        load({"all": day("b", 2, 3, carrier="UA")}, mode=WriteMode.MERGE, keys=["flight"])
        table = scan(lake, head(lake, "flights__raw")).read_all()
        found = dict(zip(table["flight"].to_pylist(), table["carrier"].to_pylist(), strict=True))
        assert found == {1: "AA", 2: "UA", 3: "UA"}


class TestNothingPartial:
    @pytest.fixture
    def bad(self, tmp_path: Path, day: Callable[..., str]) -> dict[str, str]:
        """A bad file of each kind, by the code of its error."""
        truncated, latin = tmp_path / "t.parquet", tmp_path / "l.csv"
        pq.write_table(pa.table({"flight": [1], "carrier": ["A"]}), truncated)
        truncated.write_bytes(truncated.read_bytes()[:-8])
        latin.write_bytes(b"flight,carrier\n1,\xe9\n")
        renamed = tmp_path / "r.csv"
        renamed.write_text("flight,airline\n1,AA\n")
        return {
            "source.missing": str(tmp_path / "none.csv"),
            "source.truncated": str(truncated),
            "source.columns": str(renamed),
            "source.types": day("w", 1, "x"),
            "source.encoding": str(latin),
        }

    CODES = ("source.missing", "source.truncated", "source.columns", "source.types", "source.encoding")

    @pytest.mark.parametrize("code", CODES)
    def test_a_bad_file_makes_no_table(self, load: Load, lake: Lake, bad: dict[str, str], code: str) -> None:
        before = everything(lake)
        with pytest.raises(SourceError) as caught:
            load({"2013-01-01": bad[code]})
        assert caught.value.code == code
        assert not table_exists(lake, "flights__raw")
        assert everything(lake) == before

    @pytest.mark.parametrize("code", CODES)
    @pytest.mark.parametrize("keys", [(), ("flight",)])
    def test_a_bad_file_among_good_ones_leaves_the_table_as_it_was(
        self,
        load: Load,
        lake: Lake,
        day: Callable[..., str],
        bad: dict[str, str],
        code: str,
        keys: tuple[str, ...],
    ) -> None:
        load({"2013-01-01": day("a", 1)}, keys=keys)
        before, version = everything(lake), head(lake, "flights__raw")
        with pytest.raises(SourceError) as caught:
            load({"2013-01-01": day("a", 5), "2013-01-02": [day("b", 6), bad[code]]}, keys=keys)
        assert caught.value.code == code
        assert head(lake, "flights__raw") == version
        assert flights(lake) == [1]
        assert everything(lake) == before


class TestArguments:
    @pytest.mark.parametrize("sources", [{}, {"d": []}, {"d": [""]}, {"d": " "}])
    def test_no_file_at_all_is_refused(self, load: Load, sources: dict[str, Any]) -> None:
        with pytest.raises(ArgumentError) as caught:
            load(sources)
        assert caught.value.code == "argument.empty"

    @pytest.mark.parametrize("table", ["flights__raw", "", "a/b"])
    def test_a_name_that_cannot_be_a_table_is_refused(
        self, load: Load, day: Callable[..., str], table: str
    ) -> None:
        with pytest.raises(ArgumentError) as caught:
            load({"d": day("a", 1)}, table=table)
        assert caught.value.code == "argument.table"


class TestPartitions:
    @pytest.mark.parametrize(
        ("spec", "names"),
        [
            (None, ("all",)),
            ("2013-01-01", ("2013-01-01",)),
            ("2012-02-28..2012-03-01", ("2012-02-28", "2012-02-29", "2012-03-01")),
            ("2013-01-01..2013-01-01", ("2013-01-01",)),
            (["b", "a", "b"], ("b", "a")),
            (["2013-01-01..2013-01-02", "x"], ("2013-01-01", "2013-01-02", "x")),
        ],
    )
    def test_what_a_person_writes_becomes_names(self, spec: Any, names: tuple[str, ...]) -> None:
        assert expand_partitions(spec) == names

    @pytest.mark.parametrize("spec", ["", "  ", "None", [], [""], ["a", ""], [None]])
    def test_a_template_that_rendered_to_nothing_is_refused(self, spec: Any) -> None:
        with pytest.raises(ArgumentError) as caught:
            expand_partitions(spec)
        assert caught.value.code == "argument.empty"
        assert "template" in caught.value.why

    @pytest.mark.parametrize(
        "spec", ["2013-01-02..2013-01-01", "2013-01-01..", "a..b", "1900-01-01..2100-01-01"]
    )
    def test_a_range_that_is_none_is_refused(self, spec: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            expand_partitions(spec)
        assert caught.value.code == "argument.partitions"
