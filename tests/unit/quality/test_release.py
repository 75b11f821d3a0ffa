"""Mended rows come back to their places, typed like the table, and only if the suite lets them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.cli import main
from airflow_provider_xops.errors import (
    ArgumentError,
    DataError,
    NotFoundError,
    SourceError,
    ValidationError,
    XOpsError,
)
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.quality.mended_files import read_mended, write_rows
from airflow_provider_xops.quality.quarantined import list_quarantine
from airflow_provider_xops.records import Outcome, WriteMode
from tests.unit.quality import quarantine_cases as cases
from tests.unit.quality.quarantine_cases import ALSO_BAD, DAY, SUITE, A, B, Flow, mended

HERE = "tests.unit.quality.quarantine_cases"


@pytest.fixture
def flow(lake: Lake) -> Flow:
    """A day with rows 1 and 3 in quarantine."""
    flow = Flow(lake)
    flow.run(A)
    return flow


class TestRelease:
    def test_mended_rows_take_their_old_places(self, flow: Flow) -> None:
        released = flow.release({3: (4, "AA"), 1: (2, "UA")}, reason="asked the carrier")
        assert flow.accepted() == [(1, "AA"), (2, "UA"), (3, "UA"), (4, "AA"), (5, "AA")]
        assert (released.rows, released.remaining) == (2, 0)
        assert released.report is not None
        assert released.report.outcome is Outcome.PASSED
        assert list_quarantine(flow.lake) == []
        assert flow.published() == [(1, "AA"), (3, "UA"), (5, "AA")]

    def test_the_record_says_how_many_why_and_from_what(self, flow: Flow) -> None:
        record = flow.release({1: (2, "UA")}, reason="asked the carrier").record
        assert record is not None
        assert (record.action, record.reason) == ("released", "asked the carrier")
        assert (record.rows, record.accepted_rows, record.quarantined_rows) == (5, 4, 1)
        assert record.released_rows == 1
        assert record.quarantine == head(flow.lake, "flights__quarantine")
        (kept,) = [each for each in flow.lake.evidence.all("versions") if each.table == "flights__released"]
        assert kept.note == "asked the carrier"

    def test_a_fresh_export_comes_back_with_all_its_columns_in_any_order(self, flow: Flow) -> None:
        rows = flow.export()
        rows = rows.set_column(1, "carrier", pa.array(["AA", "AA"])).set_column(0, "flight", pa.array([2, 4]))
        flow.release(rows.select(rows.column_names[::-1]))
        assert flow.accepted() == [*B[:2], B[2], *B[3:]]

    def test_dry_looks_at_everything_and_writes_nothing(self, flow: Flow) -> None:
        before = set(flow.lake.storage.list(""))
        released = flow.release({1: (2, "UA")}, dry_run=True)
        assert (released.rows, released.remaining, released.report) == (1, 1, None)
        assert set(flow.lake.storage.list("")) == before
        with pytest.raises(ValidationError):
            flow.release({1: (2, None)}, dry_run=True)

    @pytest.mark.parametrize("row", [(2, None), (-2, "AA")])
    def test_rows_that_still_break_a_check_are_refused_and_nothing_is_written(
        self, flow: Flow, row: tuple[Any, Any]
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            flow.release({1: row, 3: (4, "AA")})
        assert caught.value.code == "validation.release_refused"
        assert list(caught.value.context["refused"].values()) == [1]
        assert not table_exists(flow.lake, "flights__released")
        assert flow.waiting() == [1, 3]

    def test_rows_are_judged_among_the_accepted_ones(self, lake: Lake) -> None:
        suite = f"{HERE}:unique"
        flow = Flow(lake, suite=suite)
        flow.run([(1, "AA"), (2, "AA"), (2, "UA"), (3, "AA")])
        with pytest.raises(ValidationError):
            flow.release({1: (3, "AA")})
        flow.release({1: (4, "AA")})
        assert flow.accepted() == [(1, "AA"), (4, "AA"), (3, "AA")]
        flow.release(None)  # the other one is unique now
        assert flow.accepted() == [(1, "AA"), (4, "AA"), (2, "UA"), (3, "AA")]

    def test_as_they_are_they_must_pass_the_suite_that_was_corrected(self, flow: Flow) -> None:
        with pytest.raises(ValidationError):
            flow.release(None)
        released = flow.release(None, suite=f"{HERE}:lenient", reason="other numbers are right")
        assert flow.accepted() == A
        assert released.report is not None
        assert flow.publish(released.report).record.rows == 5
        assert flow.published() == A

    def test_a_suite_that_errs_lets_nothing_in(self, flow: Flow) -> None:
        with pytest.raises(ValidationError) as caught:
            flow.release({1: (2, "AA")}, suite=f"{HERE}:erring")
        assert caught.value.context["errored"] == 1

    def test_other_bad_rows_do_not_keep_mended_ones_out(self, lake: Lake) -> None:
        flow = Flow(lake)
        flow.run([*A, (6, "XX")])
        released = flow.release({1: (2, "UA")}, suite=f"{HERE}:strict")
        assert released.report is not None
        assert released.report.outcome is Outcome.FAILED
        with pytest.raises(ValidationError):
            flow.publish(released.report)

    def test_a_row_of_one_batch_of_an_append_table(self, lake: Lake) -> None:
        flow = Flow(lake, options={"mode": WriteMode.APPEND})
        flow.check_and_publish(flow.load(A, batch_id="a.csv"))
        flow.check_and_publish(flow.load(ALSO_BAD, batch_id="b.csv"))
        rows = flow.export()
        chosen = rows.filter(pa.array([row["flight"] == 7 for row in rows.to_pylist()]))
        chosen = chosen.set_column(1, "carrier", pa.array(["AA"]))
        with pytest.raises(ArgumentError, match="_xops_batch"):
            flow.release(chosen.drop_columns(["_xops_batch"]))
        flow.publish(flow.release(chosen).report)
        assert sorted(flow.published()) == [
            (1, "AA"), (3, "UA"), (5, "AA"), (7, "AA"), *ALSO_BAD[1:],
        ]  # fmt: skip
        assert sorted(flow.waiting()) == [1, 3]


class TestRefusals:
    @pytest.mark.parametrize(
        ("rows", "error", "code"),
        [
            (mended({0: (2, "AA")}), ArgumentError, "argument.rows"),  # accepted all along
            (mended({99: (2, "AA")}), ArgumentError, "argument.rows"),
            (pa.concat_tables([mended({1: (2, "AA")})] * 2), ArgumentError, "argument.rows"),
            (mended({1: (2, "AA")}).slice(0, 0), ArgumentError, "argument.rows"),
            (cases.table_of([(2, "AA")]), ArgumentError, "argument.rows"),
            (
                mended({1: (2, "AA")}).append_column("_xops_raw_version", pa.array([7])),
                ArgumentError,
                "argument.rows",
            ),
            (mended({1: (2, "AA")}).drop_columns(["carrier"]), DataError, "data.schema_mismatch"),
            (mended({1: (2, "AA")}).append_column("x", pa.array([1])), DataError, "data.schema_mismatch"),
            (
                pa.table({"flight": ["two"], "carrier": ["AA"], "_xops_row": [1]}),
                DataError,
                "data.cast",
            ),
        ],
        ids=["accepted", "unknown", "twice", "none", "unnumbered", "older", "missing", "extra", "type"],
    )
    def test_rows_that_cannot_be_placed(
        self, flow: Flow, rows: pa.Table, error: type[XOpsError], code: str
    ) -> None:
        with pytest.raises(error) as caught:
            flow.release(rows)
        assert caught.value.code == code
        assert not table_exists(flow.lake, "flights__released")

    def test_a_row_without_its_number(self, flow: Flow) -> None:
        rows = cases.table_of([(2, "AA")]).append_column("_xops_row", pa.array([None], pa.int64()))
        with pytest.raises(ArgumentError):
            flow.release(rows)

    def test_a_reason_is_needed(self, flow: Flow) -> None:
        with pytest.raises(ArgumentError) as caught:
            flow.release({1: (2, "AA")}, reason=" ")
        assert caught.value.code == "argument.reason"

    def test_a_partition_without_a_quarantine(self, flow: Flow) -> None:
        with pytest.raises(NotFoundError):
            flow.release({1: (2, "AA")}, partition="2013-01-02")

    def test_a_row_that_was_released_is_not_released_with_other_values(self, flow: Flow) -> None:
        flow.release({1: (2, "AA")})
        with pytest.raises(ArgumentError):
            flow.release({1: (2, "UA"), 3: (4, "AA")})


class TestFiles:
    ROWS = pa.table(
        {
            "n": pa.array([1, None], pa.int64()),
            "x": pa.array([0.1, None]),
            "s": pa.array(["ä,\"b\"\n", None]),
            "d": pa.array([date(2013, 1, 1), None]),
            "t": pa.array([datetime(2013, 1, 1, 5, 0, 0, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
            "b": pa.array([True, None]),
            "_xops_row": pa.array([3, 4], pa.int64()),
            "_xops_batch": pa.array(["", ""]),
            "_xops_reasons": pa.array(['["a"]', "[]"]),
        }
    )  # fmt: skip

    @pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
    def test_rows_come_back_as_they_went(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"rows{suffix}"
        write_rows(self.ROWS, path)
        back = read_mended(path, self.ROWS.select(list("nxsdtb")).schema)
        assert back.select(list("nxsdtb")) == self.ROWS.select(list("nxsdtb"))
        assert back.column("_xops_row") == self.ROWS.column("_xops_row")

    def test_exact_decimals_fit_into_json_and_numbers_that_are_none_do_not(self, tmp_path: Path) -> None:
        rows = pa.table({"d": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2))})
        write_rows(rows, tmp_path / "a.jsonl")
        assert read_mended(tmp_path / "a.jsonl", rows.schema) == rows
        with pytest.raises(ArgumentError, match="NaN"):
            write_rows(pa.table({"x": [float("nan")]}), tmp_path / "b.jsonl")

    def test_a_file_is_never_written_over(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text("mine")
        with pytest.raises(ArgumentError):
            write_rows(self.ROWS, path)
        assert path.read_text() == "mine"

    def test_a_file_is_for_its_owner_and_a_folder_that_is_not_there_is_an_argument(
        self, tmp_path: Path
    ) -> None:
        write_rows(self.ROWS, tmp_path / "rows.csv")
        assert (tmp_path / "rows.csv").stat().st_mode & 0o777 == 0o600
        with pytest.raises(ArgumentError, match="cannot be written"):
            write_rows(self.ROWS, tmp_path / "missing" / "rows.csv")

    def test_types_that_a_format_cannot_hold_leave_no_file(self, tmp_path: Path) -> None:
        for name, column in (("a.csv", pa.array([[1]])), ("a.jsonl", pa.array([b"x"]))):
            with pytest.raises(ArgumentError):
                write_rows(pa.table({"c": column}), tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_files_that_are_none_of_ours(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError):
            write_rows(self.ROWS, tmp_path / "rows.xlsx")
        with pytest.raises(SourceError):
            read_mended(tmp_path / "missing.parquet", self.ROWS.schema)
        (tmp_path / "empty.jsonl").write_text("")
        assert read_mended(tmp_path / "empty.jsonl", self.ROWS.select(["n"]).schema).num_rows == 0


class TestCommands:
    @pytest.fixture(autouse=True)
    def environment(self, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XOPS_LAKE_URI", flow.lake.uri)

    def test_the_list_counts_and_shows_no_values(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["quarantine", "list"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"flights {DAY}: 2 rows of flights__raw@0\n")
        assert cases.NOT_NULL in said
        assert main(["quarantine", "list", "flights", "--partition", DAY, "--json"]) == 0
        (place,) = json.loads(capsys.readouterr().out)
        assert (place["rows"], place["outdated"]) == (2, False)

    def test_exported_mended_released_and_published(
        self, flow: Flow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # given: an export that somebody mended
        path = tmp_path / "bad.csv"
        assert main(["quarantine", "export", "flights", "--partition", DAY, "--to", str(path)]) == 0
        assert "values of rows" in capsys.readouterr().err
        text = path.read_text()
        path.write_text(text.replace("2,,1", '2,"UA",1').replace("-4,", "4,"))
        release = ["quarantine", "release", "flights", "--partition", DAY, "--from", str(path)]
        release += ["--suite", SUITE, "--reason", "asked the carrier", "--engine", cases.ENGINE]
        # when
        assert main([*release, "--dry-run"]) == 0
        assert "2 rows would be released; 0 stay" in capsys.readouterr().out
        assert flow.waiting() == [1, 3]
        assert main([*release, "--publish", "--json"]) == 0
        # then
        said = json.loads(capsys.readouterr().out)
        assert (said["rows"], said["remaining"], said["published"]) == (2, 0, "flights@1")
        assert flow.published() == [(1, "AA"), (2, "UA"), (3, "UA"), (4, "AA"), (5, "AA")]
        assert main(["quarantine", "list"]) == 0
        assert "nothing is in quarantine" in capsys.readouterr().out

    def test_a_refusal_is_an_exit_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["quarantine", "release", "flights", "--partition", DAY, "--as-they-are", "--suite", SUITE]
        assert main([*words, "--reason", "no", "--engine", cases.ENGINE]) == 1
        assert "validation.release_refused" in capsys.readouterr().err
