"""Bad rows go to the quarantine with their reasons, the rest goes on, and the counts add up exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_xops.errors import ArgumentError, DataError, LakeError, NotFoundError, ValidationError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.lineage import render, trace
from airflow_provider_xops.lake.read import scan, verify_version
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.quality.quarantined import list_quarantine
from airflow_provider_xops.records import Outcome, QuarantineReport, Severity, WriteMode
from tests.unit.lake.helpers import put, rows_of, segment, user
from tests.unit.quality import quarantine_cases as cases
from tests.unit.quality.quarantine_cases import ALSO_BAD, DAY, NOT_NULL, POSITIVE, A, B, Flow

HERE = "tests.unit.quality.quarantine_cases"


@pytest.fixture
def flow(lake: Lake) -> Flow:
    return Flow(lake)


class TestParting:
    def test_bad_rows_are_set_aside_with_their_reasons_and_the_rest_goes_on_in_its_order(
        self, flow: Flow
    ) -> None:
        # given: rows 1 and 3 are bad, 4 breaks two checks
        raw = flow.load([*A, (-6, None)])
        # when
        parted = flow.part(flow.validate(raw, DAY))
        # then
        assert flow.accepted() == [(1, "AA"), (3, "UA"), (5, "AA")]
        rows = flow.export().to_pylist()
        assert [(row["flight"], row["carrier"], row["_xops_row"]) for row in rows] == [
            (2, None, 1), (-4, "AA", 3), (-6, None, 5),
        ]  # fmt: skip
        assert [json.loads(row["_xops_reasons"]) for row in rows] == [
            [NOT_NULL], [POSITIVE], [NOT_NULL, POSITIVE],
        ]  # fmt: skip
        assert {row["_xops_raw_version"] for row in rows} == {raw.version}
        assert rows[0]["_xops_suite"].startswith("flights ")
        assert parted.report.outcome is Outcome.PASSED

    def test_the_record_counts_exactly_and_names_all_versions(self, flow: Flow) -> None:
        raw = flow.load(A)
        report = flow.validate(raw, DAY)
        record = flow.part(report).record
        assert record is not None
        assert (record.rows, record.accepted_rows, record.quarantined_rows) == (5, 3, 2)
        assert record.reasons == {POSITIVE: 1, NOT_NULL: 1}
        assert (record.raw, record.validation, record.action) == (raw, report.record_id, "quarantined")
        assert record.accepted == head(flow.lake, "flights__accepted")
        assert record.quarantine == head(flow.lake, "flights__quarantine")
        assert flow.lake.evidence.get(QuarantineReport.kind, record.record_id) == record

    def test_the_accepted_version_has_the_raw_one_as_parent(self, flow: Flow) -> None:
        raw = flow.load(A)
        parted = flow.part(flow.validate(raw, DAY))
        accepted = flow.lake.evidence.all("versions")
        (found,) = [each for each in accepted if each.ref == parted.report.dataset]
        assert found.parents == (raw,)
        assert found.parent_partitions == ((DAY,),)
        assert verify_version(flow.lake, found.ref) == []

    def test_the_page_tells_reasons_and_partitions_and_no_values(self, flow: Flow) -> None:
        record = flow.part(flow.validate(flow.load([(1, "AA"), (-987654, "secret")]), DAY)).record
        assert record is not None
        assert record.report_uri is not None
        page = (Path(flow.lake.uri) / record.report_uri.partition(f"{flow.lake.uri}/")[2]).read_text()
        assert POSITIVE in page
        assert DAY in page
        assert "987654" not in page
        assert "secret" not in page

    def test_clean_partitions_go_along_so_that_one_report_covers_all(self, flow: Flow) -> None:
        raw = flow.load_days(**{"2013-01-01": A, "2013-01-02": B})
        parted = flow.part(flow.validate(raw))
        assert flow.accepted("2013-01-02") == B
        assert flow.waiting("2013-01-02") == []
        assert parted.report.partitions == ("2013-01-01", "2013-01-02")
        assert flow.publish(parted.report).record.total_rows == 8

    def test_only_the_reported_partitions_are_parted(self, flow: Flow) -> None:
        raw = flow.load_days(**{"2013-01-01": A, "2013-01-02": ALSO_BAD})
        flow.part(flow.validate(raw, "2013-01-02"))
        assert rows_of(flow.lake, "flights__accepted") == {"2013-01-02": ALSO_BAD[1:]}
        assert flow.waiting("2013-01-01") == []

    def test_it_streams_what_has_many_batches(self, flow: Flow) -> None:
        count = 200_000
        carriers = ["AA" if number % 100 else None for number in range(count)]
        rows = pa.table({"flight": range(1, count + 1), "carrier": pa.array(carriers, pa.string())})
        ref = put(flow.lake, "flights__raw", segment(DAY, "big", rows)).record.ref
        record = flow.part(flow.validate(ref, DAY)).record
        assert record is not None
        assert (record.accepted_rows, record.quarantined_rows) == (198_000, 2_000)
        assert flow.waiting() == list(range(0, count, 100))
        accepted = scan(flow.lake, record.accepted, partitions=[DAY]).read_all()
        assert accepted.column("flight").to_pylist() == [n for n in range(1, count + 1) if (n - 1) % 100]

    def test_equal_checks_are_told_apart_whichever_of_them_failed(self, flow: Flow) -> None:
        suite = f"{HERE}:bounded"
        for rows in ([(-1, "AA"), (100, "AA"), (3, "AA")], [(1, "AA"), (100, "AA"), (3, "AA")]):
            flow.part(flow.validate(flow.load(rows), DAY, suite=suite), suite)
            assert json.loads(flow.export().to_pylist()[-1]["_xops_reasons"]) == [f"{POSITIVE} #2"]

    def test_reasons_are_readable_whatever_the_column_is_called(self, flow: Flow, tmp_path: Path) -> None:
        # given: a NaN, a null, and a condition on other rows
        names = ['"ü" <b>', "a; b"]
        rows = pa.table([[1.0, float("nan"), None, 4.0], [1, 1, 3, 9]], names=names)
        suite = tmp_path / "suite.json"
        between = {"column": names[1], "max_value": 4, "row_condition": 'col("a; b") > 3'}
        suite.write_text(json.dumps({"name": "s", "expectations": [
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": names[0]}},
            {"type": "expect_column_values_to_be_between",
             "kwargs": {**between, "condition_parser": "great_expectations"}},
            {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": names[::-1]}},
        ]}))  # fmt: skip
        raw = put(flow.lake, "flights__raw", segment(DAY, "odd", rows)).record.ref
        # when
        record = flow.part(flow.validate(raw, DAY, suite=str(suite)), str(suite)).record
        # then
        assert record is not None
        assert record.reasons == {
            'expect_column_values_to_not_be_null("ü" <b>)': 2,
            "expect_column_values_to_be_between(a; b)": 1,
        }
        assert "ü" in flow.export().to_pylist()[0]["_xops_reasons"]
        page = (Path(flow.lake.uri) / str(record.report_uri).partition(f"{flow.lake.uri}/")[2]).read_text()
        assert "&quot;ü&quot; &lt;b&gt;" in page

    def test_all_rows_that_are_alike_go_and_those_of_other_partitions_too(self, flow: Flow) -> None:
        # given: two days that were parted one by one, with a flight that is in both
        suite = f"{HERE}:unique"
        other = "2013-01-02"
        flow.load([(1, "AA"), (1, "UA"), (2, "AA"), (3, "AA")])
        raw = flow.load([(4, "AA"), (4, "UA"), (2, "UA"), (5, "AA")], other)
        for day in (DAY, other):
            flow.part(flow.validate(raw, day, suite=suite), suite)
        assert (flow.waiting(), flow.waiting(other)) == ([0, 1], [0, 1])
        # when: both are looked at together
        parted = flow.part(flow.validate(raw, DAY, other, suite=suite), suite)
        # then
        assert parted.report.outcome is Outcome.PASSED
        assert (flow.accepted(), flow.accepted(other)) == ([(3, "AA")], [(5, "AA")])


class TestWhatDecides:
    def test_a_version_that_passed_goes_on_as_it_is(self, flow: Flow) -> None:
        report = flow.validate(flow.load(B), DAY)
        parted = flow.part(report)
        assert (parted.report, parted.record) == (report, None)
        assert not table_exists(flow.lake, "flights__accepted")

    def test_warnings_move_no_rows(self, flow: Flow) -> None:
        report = flow.validate(flow.load([(1, "XX"), (2, None), (3, "AA")]), DAY)
        parted = flow.part(report)
        assert flow.accepted() == [(1, "XX"), (3, "AA")]
        assert (parted.report.outcome, parted.report.severity) == (Outcome.FAILED, Severity.WARNING)
        assert flow.publish(parted.report).record.rows == 2

    def test_mostly_that_passes_moves_none_and_one_that_fails_moves_all(self, flow: Flow) -> None:
        suite = f"{HERE}:mostly"
        flow.part(flow.validate(flow.load(A), DAY, suite=suite), suite)
        assert flow.accepted() == [(1, "AA"), (2, None), (3, "UA"), (5, "AA")]

    def test_checks_of_the_table_are_asked_again_of_what_is_left(self, flow: Flow) -> None:
        suite = f"{HERE}:counted"
        parted = flow.part(flow.validate(flow.load(A), DAY, suite=suite), suite)
        assert (parted.report.outcome, parted.report.severity) == (Outcome.FAILED, Severity.CRITICAL)
        assert parted.report.dataset == head(flow.lake, "flights__accepted")
        with pytest.raises(ValidationError):
            flow.publish(parted.report)

    def test_where_no_row_is_to_blame_nothing_is_set_aside(self, flow: Flow) -> None:
        suite = f"{HERE}:only_counted"
        report = flow.validate(flow.load(A), DAY, suite=suite)
        parted = flow.part(report, suite)
        assert (parted.report, parted.record) == (report, None)
        assert not table_exists(flow.lake, "flights__quarantine")

    def test_a_check_that_errored_stops_it(self, flow: Flow) -> None:
        suite = f"{HERE}:erring"
        with pytest.raises(ValidationError, match="could not be run") as caught:
            flow.part(flow.validate(flow.load(A), DAY, suite=suite), suite)
        assert caught.value.code == "validation.errored"
        assert not table_exists(flow.lake, "flights__quarantine")

    def test_too_many_bad_rows_stop_it_and_nothing_is_written(self, flow: Flow) -> None:
        before = flow.validate(flow.load(A), DAY)
        with pytest.raises(ValidationError) as caught:
            flow.part(before, max_share=0.39)
        assert caught.value.code == "validation.too_many_quarantined"
        assert (caught.value.context["quarantined"], caught.value.context["rows"]) == (2, 5)
        assert not caught.value.retryable
        assert not table_exists(flow.lake, "flights__quarantine")
        assert not table_exists(flow.lake, "flights__accepted")
        assert flow.part(before, max_share=0.4).record is not None

    def test_a_share_that_is_met_exactly_is_not_too_much(self, flow: Flow) -> None:
        rows = [(number + 1, None if number < 29 else "AA") for number in range(100)]
        assert (
            flow.part(flow.validate(flow.load(rows), DAY), max_share=0.29).record is not None
        )  # 0.29 * 100 < 29

    def test_too_many_is_explained_by_what_would_move_rows(self, flow: Flow) -> None:
        report = flow.validate(flow.load([*A, (6, "XX")]), DAY)
        with pytest.raises(ValidationError) as caught:
            flow.part(report, max_share=0)
        assert "in_set" not in str(caught.value)
        assert f"{NOT_NULL}: 1 rows" in str(caught.value)

    def test_the_share_is_of_all_named_partitions_together(self, flow: Flow) -> None:
        raw = flow.load_days(**{"2013-01-01": A, "2013-01-02": B})
        assert flow.part(flow.validate(raw), max_share=0.2).record is not None

    def test_all_rows_may_be_bad_if_that_is_allowed(self, flow: Flow) -> None:
        parted = flow.part(flow.validate(flow.load([(1, None)]), DAY), max_share=1.0)
        assert parted.report.outcome is Outcome.NO_DATA
        assert flow.waiting() == [0]


class TestRefusals:
    @pytest.mark.parametrize("share", [-0.1, 1.1])
    def test_a_share_is_between_zero_and_one(self, flow: Flow, share: float) -> None:
        with pytest.raises(ArgumentError) as caught:
            flow.part(flow.validate(flow.load(A), DAY), max_share=share)
        assert caught.value.code == "argument.max_share"

    def test_another_suite_than_the_reports_is_refused(self, flow: Flow) -> None:
        with pytest.raises(ArgumentError) as caught:
            flow.part(flow.validate(flow.load(A), DAY), f"{HERE}:lenient")
        assert caught.value.code == "argument.suite_changed"

    def test_only_raw_versions_are_parted(self, flow: Flow) -> None:
        parted = flow.run(A)
        with pytest.raises(ArgumentError) as caught:
            flow.part(parted.report)
        assert caught.value.code == "argument.not_raw"

    def test_columns_of_our_names_are_refused(self, flow: Flow) -> None:
        rows = pa.table({"flight": [1], "carrier": pa.array([None], pa.string()), "_xops_Row": [0]})
        ref = put(flow.lake, "flights__raw", segment(DAY, "x", rows)).record.ref
        with pytest.raises(DataError) as caught:
            flow.part(flow.validate(ref, DAY))
        assert caught.value.code == "data.reserved_column"

    def test_raw_rows_that_somebody_changed_are_not_accepted(self, flow: Flow) -> None:
        report = flow.validate(flow.load(A), DAY)
        (path,) = (path for path in flow.lake.storage.list("flights__raw/") if path.endswith(".parquet"))
        pq.write_table(cases.table_of([*A[:4], (6, "AA")]), Path(flow.lake.uri) / path)
        with pytest.raises(LakeError) as caught:
            flow.part(report)
        assert caught.value.code == "lake.digest_mismatch"
        assert not table_exists(flow.lake, "flights__accepted")

    def test_tables_on_the_way_are_not_read_by_accident(self, flow: Flow) -> None:
        from airflow_provider_xops.lake.tables import resolve_ref

        flow.run(A)
        for name in ("flights__accepted", "flights__quarantine"):
            with pytest.raises(ArgumentError) as caught:
                resolve_ref(flow.lake, name)
            assert caught.value.code == "argument.raw_table"
            assert resolve_ref(flow.lake, name, allow_raw=True) == head(flow.lake, name)


class TestModes:
    def test_appended_batches_are_parted_and_published_one_by_one(self, lake: Lake) -> None:
        flow = Flow(lake, options={"mode": WriteMode.APPEND})
        flow.check_and_publish(flow.load(A, batch_id="a.csv"))
        before = set(lake.storage.list("flights/_xops_partition"))
        flow.check_and_publish(flow.load(ALSO_BAD, batch_id="b.csv"))
        assert sorted(flow.published()) == [(1, "AA"), (3, "UA"), (5, "AA"), *ALSO_BAD[1:]]
        assert before < set(lake.storage.list("flights/_xops_partition"))
        assert sorted(flow.waiting()) == [0, 1, 3]
        assert len({place.batch for place in list_quarantine(lake, "flights")}) == 2

    def test_a_batch_that_was_corrected_replaces_its_accepted_part_whichever_way_it_comes(
        self, lake: Lake
    ) -> None:
        flow = Flow(lake, options={"mode": WriteMode.APPEND})
        flow.check_and_publish(flow.load(A, batch_id="a.csv"))
        flow.check_and_publish(flow.load(B, batch_id="a.csv"))
        assert flow.published() == B
        assert flow.waiting() == []
        flow.check_and_publish(flow.load(A, batch_id="a.csv"))
        assert flow.published() == [(1, "AA"), (3, "UA"), (5, "AA")]

    def test_a_merged_partition_is_parted_whole(self, lake: Lake) -> None:
        flow = Flow(lake, options={"mode": WriteMode.MERGE, "keys": ["flight"]})
        flow.check_and_publish(flow.load(A, batch_id="a.csv"))
        flow.check_and_publish(flow.load([(2, "AA"), (9, None)], batch_id="b.csv"))
        assert sorted(flow.published()) == [(1, "AA"), (2, "AA"), (3, "UA"), (5, "AA")]
        assert sorted(row["flight"] for row in flow.export().to_pylist()) == [-4, 9]


class TestList:
    def test_it_counts_by_partition_and_reason_and_shows_no_values(self, flow: Flow) -> None:
        raw = flow.load_days(**{"2013-01-01": A, "2013-01-02": ALSO_BAD})
        flow.part(flow.validate(raw))
        first, second = list_quarantine(flow.lake)
        assert (first.table, first.partition, first.rows) == ("flights", "2013-01-01", 2)
        assert first.reasons == {POSITIVE: 1, NOT_NULL: 1}
        assert (second.rows, second.raw, second.outdated) == (1, raw, False)
        assert [each.partition for each in list_quarantine(flow.lake, "flights", partition="2013-01-02")] == [
            "2013-01-02"
        ]

    def test_rows_of_raw_data_that_were_replaced_are_told_apart(self, flow: Flow) -> None:
        flow.part(flow.validate(flow.load(A), DAY))
        flow.load(B)
        (place,) = list_quarantine(flow.lake, "flights")
        assert place.outdated

    def test_a_table_without_a_quarantine_has_nothing_in_it_and_one_that_is_none_is_an_error(
        self, flow: Flow
    ) -> None:
        flow.load(B)
        assert list_quarantine(flow.lake, "flights") == []
        with pytest.raises(NotFoundError):
            list_quarantine(flow.lake, "no_such_table")
        with pytest.raises(NotFoundError):
            flow.export()


def test_the_trace_goes_from_the_published_version_through_the_accepted_one_to_the_raw_one(
    flow: Flow,
) -> None:
    flow.run(A)
    text = render(trace(flow.lake, "flights@0"))
    order = ["dataset flights@0", "dataset flights__accepted@0", "dataset flights__raw@0"]
    found = [text.index(each) for each in order]
    assert found == sorted(found)
    assert "MISSING" not in text
    assert "rows accepted after: validation" in text
    assert "2 of 5 rows of flights__raw@0, in flights__quarantine@0" in text
    down = render(trace(flow.lake, "flights__raw@0"))
    assert "flights__quarantine@0" in down
    assert "dataset flights@0" in down


def test_the_trace_of_a_release_has_what_was_mended_and_why(flow: Flow) -> None:
    flow.run(A)
    flow.publish(flow.release({1: (2, "UA")}).report)
    text = render(trace(flow.lake, "flights@1"))
    assert "mended by hand" in text
    assert "1 mended rows" in text
    assert "dataset flights__released@0" in text
    assert "dataset flights__raw@0" in text
    assert "MISSING" not in text


def test_a_column_that_the_raw_table_got_is_got_by_every_table_on_the_way(flow: Flow) -> None:
    # given: a day with a release, and a later day whose file has a new column
    other = "2013-01-02"
    flow.run(A)
    flow.publish(flow.release({1: (2, "UA")}).report)
    rows = cases.table_of(ALSO_BAD).append_column("gate", pa.array(list("abcde")))
    raw = put(
        flow.lake, "flights__raw", segment(other, "new", rows), evolve={"added": "evolve"}, actor=user(99)
    ).record.ref
    # when
    flow.publish(flow.part(flow.validate(raw, DAY, other)).report)
    flow.publish(flow.release(
        cases.mended({0: (7, "AA")}).append_column("gate", pa.array(["x"])), partition=other
    ).report)  # fmt: skip
    # then
    found = rows_of(flow.lake, "flights")
    assert found[DAY] == [(1, "AA", None), (2, "UA", None), (3, "UA", None), (5, "AA", None)]
    gates = zip(ALSO_BAD[1:], "bcde", strict=True)
    assert found[other] == [(7, "AA", "x"), *((*row, gate) for row, gate in gates)]
    assert flow.waiting() == [3]
    # and: what was released before the column came is still there when all is parted anew
    flow.check_and_publish(raw, f"{HERE}:mostly")
    assert rows_of(flow.lake, "flights")[DAY][1] == (2, "UA", None)
