"""Versions in, a version out: by SQL or by a function, once, in a box."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.data.transform import TransformInput, transform
from airflow_provider_xops.errors import (
    ArgumentError,
    DataError,
    NotFoundError,
    UserCodeError,
    XOpsError,
)
from airflow_provider_xops.lake.commit import CommitResult
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import table_exists
from airflow_provider_xops.records import Actor, DatasetRef, WriteMode
from tests.unit.lake.helpers import put, rows_of, segment, user

FUNCTIONS = "tests.unit.data.transformations"
Make = Callable[..., CommitResult]


@pytest.fixture
def make(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Make:
    """``transform`` into the table ``result``, each call by a later attempt."""

    def make(inputs: dict[str, Any], sql: str | None = None, **options: Any) -> CommitResult:
        options = {"table": "result", "actor": make_actor(), **options}
        return transform(lake, inputs, sql=sql, as_of=as_of, **options)

    return make


@pytest.fixture
def flights(lake: Lake) -> DatasetRef:
    """Two days of flights."""
    first = segment("2013-01-01", "a", {"flight": [3, 1, 2], "carrier": ["UA", "AA", "AA"]})
    second = segment("2013-01-02", "b", {"flight": [4], "carrier": ["B6"]})
    return put(lake, "flights", first, second).record.ref


@pytest.fixture
def airlines(lake: Lake) -> DatasetRef:
    """A table without partitions."""
    rows = {"carrier": ["AA", "UA", "B6"], "name": ["American", "United", "JetBlue"]}
    return put(lake, "airlines", segment("all", "c", rows)).record.ref


def result(lake: Lake, ref: DatasetRef) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scan(lake, ref).read_all().to_pylist()
    return found


class TestSql:
    def test_the_result_is_sorted_and_names_its_parents(
        self, lake: Lake, flights: DatasetRef, make: Make
    ) -> None:
        record = make({"f": flights}, "SELECT carrier, count(*) AS n FROM f GROUP BY carrier").record
        assert result(lake, record.ref) == [
            {"carrier": "AA", "n": 2},
            {"carrier": "B6", "n": 1},
            {"carrier": "UA", "n": 1},
        ]
        assert record.parents == (flights,)
        assert record.parent_partitions == (None,)

    def test_the_same_sql_over_the_same_rows_is_not_run_again(
        self, lake: Lake, flights: DatasetRef, make: Make
    ) -> None:
        first = make({"f": flights}, "SELECT * FROM f")
        # given: the input has a new version with the same rows in other partitions' company
        newer = put(
            lake, "flights", segment("2013-01-03", "c", {"flight": [9], "carrier": ["AA"]})
        ).record.ref
        inputs = {"f": TransformInput(newer, ("2013-01-01", "2013-01-02"))}
        assert make({"f": flights}, " SELECT * FROM f\n").reused
        assert make(inputs, "SELECT * FROM f").reused
        assert first.record.rows == 4

    @pytest.mark.parametrize("sql", ["SELECT flight FROM f", "SELECT * FROM f WHERE flight > 1"])
    def test_other_sql_replaces_the_result(self, flights: DatasetRef, make: Make, sql: str) -> None:
        columns = sql.partition(" ")[2].partition(" ")[0]
        make({"f": flights}, f"SELECT {columns} FROM f WHERE flight < 0")
        again = make({"f": flights}, sql)
        assert not again.reused
        assert again.record.version == 1

    def test_a_partition_is_made_from_the_partitions_of_its_name_and_from_whole_tables(
        self, lake: Lake, flights: DatasetRef, airlines: DatasetRef, make: Make
    ) -> None:
        sql = "SELECT f.flight, a.name, $partition AS day FROM f JOIN a USING (carrier)"
        days = ["2013-01-01", "2013-01-02"]
        record = make({"f": flights, "a": airlines}, sql, partitions=days).record
        assert rows_of(lake, "result") == {
            "2013-01-01": [
                (1, "American", "2013-01-01"),
                (2, "American", "2013-01-01"),
                (3, "United", "2013-01-01"),
            ],
            "2013-01-02": [(4, "JetBlue", "2013-01-02")],
        }
        assert dict(zip(record.parents, record.parent_partitions, strict=True)) == {
            flights: tuple(days),
            airlines: None,
        }

    def test_a_changed_partition_is_made_again_and_the_others_are_not(
        self, lake: Lake, flights: DatasetRef, make: Make
    ) -> None:
        days = ["2013-01-01", "2013-01-02"]
        make({"f": flights}, "SELECT flight FROM f", partitions=days)
        changed = segment("2013-01-02", "new", {"flight": [5], "carrier": ["B6"]})
        newer = put(lake, "flights", changed, actor=user(2)).record.ref
        record = make({"f": newer}, "SELECT flight FROM f", partitions=days).record
        assert record.partitions == ("2013-01-02",)
        assert rows_of(lake, "result")["2013-01-02"] == [(5,)]

    def test_an_input_may_choose_its_rows(self, lake: Lake, flights: DatasetRef, make: Make) -> None:
        inputs = {"today": flights, "ever": TransformInput(flights)}
        make(
            inputs,
            "SELECT (SELECT count(*) FROM today) AS today, (SELECT count(*) FROM ever) AS ever",
            partitions=["2013-01-02"],
        )
        assert rows_of(lake, "result") == {"2013-01-02": [(1, 4)]}

    def test_a_partition_that_an_input_does_not_have_is_refused(
        self, lake: Lake, flights: DatasetRef, make: Make
    ) -> None:
        with pytest.raises(NotFoundError) as caught:
            make({"f": flights}, "SELECT * FROM f", partitions=["2013-01-09"])
        assert caught.value.code == "not_found.partition"
        assert not table_exists(lake, "result")

    def test_keys_decide_the_order(self, lake: Lake, flights: DatasetRef, make: Make) -> None:
        ref = make({"f": flights}, "SELECT carrier, flight FROM f", keys=["flight"]).record.ref
        assert [row["flight"] for row in result(lake, ref)] == [1, 2, 3, 4]

    def test_sums_are_int64_and_times_are_utc(self, lake: Lake, make: Make) -> None:
        moment = datetime(2013, 1, 1, 15, tzinfo=UTC)
        times = pa.table({"n": [1, 2], "moment": pa.array([moment] * 2, pa.timestamp("us", "UTC"))})
        ref = put(lake, "times", segment("all", "t", times)).record.ref
        out = make(
            {"t": ref}, "SELECT sum(n) AS n, max(moment) AS moment, hour(max(moment)) AS h FROM t"
        ).record.ref
        schema = scan(lake, out).schema
        assert (schema.field("n").type, schema.field("moment").type) == (
            pa.int64(),
            pa.timestamp("us", "UTC"),
        )
        assert result(lake, out) == [{"n": 3, "moment": moment, "h": 15}]

    def test_a_large_result_is_streamed_in_order(self, lake: Lake, make: Make) -> None:
        ref = put(lake, "one", segment("all", "t", {"n": [300_000]})).record.ref
        out = make({"t": ref}, "SELECT i FROM t, range(n) AS r(i) ORDER BY i DESC").record
        first = next(iter(scan(lake, out.ref)))
        assert out.rows == 300_000
        assert first.column("i")[:3].to_pylist() == [0, 1, 2]

    def test_an_empty_result_is_a_result(self, flights: DatasetRef, make: Make) -> None:
        assert make({"f": flights}, "SELECT * FROM f WHERE false").record.rows == 0

    def test_a_raw_result_waits_for_its_validation(self, lake: Lake, flights: DatasetRef, make: Make) -> None:
        assert make({"f": flights}, "SELECT * FROM f", raw=True).record.table == "result__raw"
        assert not table_exists(lake, "result")

    def test_appended_results_stand_side_by_side(self, lake: Lake, flights: DatasetRef, make: Make) -> None:
        for sql in ("SELECT 1 AS n FROM f LIMIT 1", "SELECT 2 AS n FROM f LIMIT 1") * 2:
            make({"f": flights}, sql, mode=WriteMode.APPEND)
        assert sorted(rows_of(lake, "result")["all"]) == [(1,), (2,)]


class TestTheBox:
    @pytest.mark.parametrize(
        ("sql", "why"),
        [
            ("SELECT * FROM read_csv('/etc/hostname')", "beyond its inputs"),
            ("SELECT * FROM glob('/*')", "beyond its inputs"),
            ("SELECT * FROM '/etc/hostname'", "does not exist"),
            ("SELECT * FROM outside", "does not exist"),
            ("SELECT gate FROM f", "gate"),
            ("SELEC 1", "syntax error"),
            ("SELECT 1; SELECT 2", "2 statements"),
            ("", "template"),
            ("DROP VIEW f", "something else than read"),
            ("COPY f TO 'out.csv'", "something else than read"),
            ("SELECT $day FROM f", "$partition"),
        ],
    )
    def test_sql_that_is_not_one_select_over_its_inputs_is_refused(
        self, lake: Lake, flights: DatasetRef, make: Make, sql: str, why: str
    ) -> None:
        outside = pa.table({"n": [1]})
        with pytest.raises(ArgumentError) as caught:
            make({"f": flights}, sql)
        assert caught.value.code in ("argument.sql", "argument.transform")
        assert why in caught.value.why
        assert not table_exists(lake, "result")
        assert outside.num_rows == 1

    def test_a_value_that_breaks_the_sql_is_not_quoted(
        self, lake: Lake, flights: DatasetRef, make: Make
    ) -> None:
        before = set(lake.storage.list(""))
        with pytest.raises(DataError) as caught:
            make({"f": flights}, "SELECT CAST(carrier AS INTEGER) AS n FROM f")
        assert caught.value.code == "data.transform"
        assert "AA" not in str(caught.value)
        assert "UA" not in str(caught.value)
        assert set(lake.storage.list("")) == before

    def test_a_column_that_no_table_can_hold_is_named(self, flights: DatasetRef, make: Make) -> None:
        with pytest.raises(DataError) as caught:
            make({"f": flights}, "SELECT TIMESTAMP '2013-01-01' AS sold_at FROM f")
        assert caught.value.code == "data.naive_timestamp"
        assert "sold_at" in str(caught.value)

    def test_a_name_that_sql_would_have_to_quote_is_refused(self, flights: DatasetRef, make: Make) -> None:
        with pytest.raises(ArgumentError) as caught:
            make({"my flights": flights}, "SELECT 1 AS n")
        assert caught.value.code == "argument.alias"


class TestFunctions:
    def test_a_function_gets_tables_and_its_rows_are_sorted(
        self, lake: Lake, flights: DatasetRef, make: Make
    ) -> None:
        call = {"function": f"{FUNCTIONS}:above", "function_args": {"minimum": 2}}
        record = make({"flights": flights}, **call).record
        assert [row["flight"] for row in result(lake, record.ref)] == [2, 3, 4]
        assert make({"flights": flights}, **call).reused
        assert not make(
            {"flights": flights}, function=f"{FUNCTIONS}:above", function_args={"minimum": 3}
        ).reused

    def test_a_commit_elsewhere_in_its_repository_is_no_reason_to_call_it_again(
        self, flights: DatasetRef, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository = tmp_path / "repository"
        repository.mkdir()
        module = repository / "xops_committed.py"
        module.write_text("def same(inputs):\n    return inputs['flights']\n")

        def commit_all() -> None:
            git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.com"]
            for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "more"]):
                subprocess.run([*git, *arguments], check=True, capture_output=True)

        monkeypatch.syspath_prepend(str(repository))
        commit_all()
        assert not make({"flights": flights}, function="xops_committed:same").reused

        (repository / "README.md").write_text("something else\n")
        commit_all()
        assert make({"flights": flights}, function="xops_committed:same").reused

        module.write_text(module.read_text() + "# changed\n")
        commit_all()
        assert not make({"flights": flights}, function="xops_committed:same").reused

    def test_a_function_may_give_a_data_frame(self, flights: DatasetRef, make: Make) -> None:
        assert make({"flights": flights}, function=f"{FUNCTIONS}:as_frame").record.rows == 4

    def test_a_function_that_raises_is_reported_without_its_values(
        self, lake: Lake, flights: DatasetRef, make: Make
    ) -> None:
        with pytest.raises(UserCodeError) as caught:
            make({"flights": flights}, function=f"{FUNCTIONS}:broken")
        assert caught.value.code == "user_code.raised"
        assert "ValueError" in str(caught.value)
        assert "alice" not in str(caught.value)
        assert not table_exists(lake, "result")

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            ({"function": f"{FUNCTIONS}:not_rows"}, "user_code.result"),
            ({"function": f"{FUNCTIONS}:absent"}, "user_code.not_found"),
            ({"function": lambda inputs: inputs["flights"]}, "user_code.lambda"),
            (
                {"function": f"{FUNCTIONS}:above", "function_args": {"minimum": object()}},
                "argument.function_args",
            ),
            ({"function": f"{FUNCTIONS}:above", "sql": "SELECT 1"}, "argument.transform"),
            ({}, "argument.transform"),
        ],
    )
    def test_what_is_no_usable_function_is_refused(
        self, flights: DatasetRef, make: Make, options: dict[str, Any], code: str
    ) -> None:
        with pytest.raises(XOpsError) as caught:
            make({"flights": flights}, **options)
        assert caught.value.code == code


def test_a_table_made_from_nothing_is_refused(make: Make) -> None:
    with pytest.raises(ArgumentError) as caught:
        make({}, "SELECT 1 AS n")
    assert caught.value.code == "argument.empty"
