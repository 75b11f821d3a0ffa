"""What Airflow, people and crashes do to a quarantine; docs/quarantine.md has this file as a table.

Every story ends with the same questions: is what is published what one undisturbed run of the last delivery
(and the releases of it) would have published, do accepted and quarantined rows add up to the raw ones, and is
all of it in the evidence?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, NotFoundError, Superseded
from airflow_provider_xops.lake import commit as commit_module
from airflow_provider_xops.lake.history import stored_record
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import verify_version
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.quality import _quarantine_tables as tables
from airflow_provider_xops.quality import quarantine as quarantine_module
from airflow_provider_xops.quality import release as release_module
from airflow_provider_xops.quality.quarantined import list_quarantine
from airflow_provider_xops.records import Outcome, ValidationReport
from tests.unit.quality.quarantine_cases import ALSO_BAD, DAY, A, B, Flow

HERE = "tests.unit.quality.quarantine_cases"
A_ACCEPTED = [(1, "AA"), (3, "UA"), (5, "AA")]
MENDED = {1: (2, "UA")}
A_MENDED = [(1, "AA"), (2, "UA"), (3, "UA"), (5, "AA")]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture
def flow(lake: Lake) -> Flow:
    # Which engine finds the bad rows plays no part here; this one is quicker.
    return Flow(lake, engine="pandas")


def check(flow: Flow, published: list[Any], waiting: list[int], *, accepted: list[Any] | None = None) -> None:
    """``accepted``: what stands there, if it is not what is published."""
    assert flow.published() == published
    assert flow.waiting() == waiting
    assert flow.accepted() == (published if accepted is None else accepted)
    for table in ("flights", "flights__accepted", "flights__quarantine"):
        ref = head(flow.lake, table)
        assert verify_version(flow.lake, ref) == []
        assert stored_record(flow.lake, ref) is not None


def versions(flow: Flow) -> list[int]:
    return [
        head(flow.lake, table).version for table in ("flights", "flights__accepted", "flights__quarantine")
    ]


def dies_at(call: int, function: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """``function``, but the process is killed at its ``call``-th call (``after``: when that was done)."""
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Killed
        result = function(*args, **kwargs)
        if calls == call:
            raise Killed
        return result

    return dying


# Where a split can die: what is patched, and how.
KILLS = {
    "before the quarantine's commit": (commit_module, "_commit_files", 1, False),
    "after the quarantine's commit, before its evidence": (commit_module, "_put_evidence", 1, False),
    "between the two commits": (tables, "commit", 1, True),
    "before the accepted commit": (commit_module, "_commit_files", 2, False),
    "after the accepted commit, before its evidence": (commit_module, "_put_evidence", 2, False),
    "before the accepted rows are validated": (quarantine_module, "validate", 1, False),
    "before the record": (quarantine_module, "record_of", 1, False),
}


@pytest.mark.parametrize("kill", KILLS)
def test_retry_after_a_crash(flow: Flow, monkeypatch: pytest.MonkeyPatch, kill: str) -> None:
    module, name, call, after = KILLS[kill]
    report = flow.validate(flow.load(A), DAY)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, dies_at(call, getattr(module, name), after=after))
        with pytest.raises(Killed):
            flow.part(report)
    # when
    parted = flow.part(report)
    flow.publish(parted.report)
    # then
    check(flow, A_ACCEPTED, [1, 3])
    assert versions(flow) == [0, 0, 0]
    assert parted.record is not None
    assert parted.record.accepted_rows + parted.record.quarantined_rows == 5


def test_clear_same(flow: Flow) -> None:
    first = flow.run(A)
    assert flow.run(A) == first
    check(flow, A_ACCEPTED, [1, 3])
    assert versions(flow) == [0, 0, 0]


def test_clear_with_another_suite_parts_anew(flow: Flow) -> None:
    flow.run(A)
    flow.run(A, suite=f"{HERE}:mostly")
    check(flow, [(1, "AA"), (2, None), (3, "UA"), (5, "AA")], [3])
    flow.run(A, suite=f"{HERE}:lenient")
    check(flow, A, [], accepted=[])
    flow.run(A)
    check(flow, A_ACCEPTED, [1, 3])


def test_corrected_file(flow: Flow) -> None:
    flow.run(A)
    flow.run(B)
    check(flow, B, [], accepted=[])


def test_corrected_file_that_is_bad_too(flow: Flow) -> None:
    flow.run(A)
    flow.run(ALSO_BAD)
    check(flow, ALSO_BAD[1:], [0])


def test_corrected_file_and_then_the_first_one_again(flow: Flow) -> None:
    flow.run(A)
    flow.run(B)
    flow.run(A)
    check(flow, A_ACCEPTED, [1, 3])
    flow.run(A)
    check(flow, A_ACCEPTED, [1, 3])
    # and: the correction, published late, changes nothing
    late = flow.validate(_raw_version(flow, 1), DAY)
    with pytest.raises(Superseded):
        flow.publish(late)
    check(flow, A_ACCEPTED, [1, 3])


@pytest.mark.parametrize("corrected", [B, ALSO_BAD], ids=["good", "bad too"])
def test_late_twin_of_a_bad_file(flow: Flow, corrected: list[Any]) -> None:
    """A run of the old delivery wakes up when the correction is through; its attempt is the later one."""
    report = flow.validate(flow.load(A), DAY)
    first = flow.part(report)
    flow.publish(first.report)
    flow.run(corrected)
    before = versions(flow)
    with pytest.raises(Superseded):
        flow.part(report)
    with pytest.raises(Superseded):
        flow.publish(first.report)
    assert versions(flow) == before
    assert flow.published() == (B if corrected is B else ALSO_BAD[1:])


def test_late_twin_that_was_never_parted_is_superseded_when_it_publishes(flow: Flow) -> None:
    report = flow.validate(flow.load(A), DAY)
    flow.run(B)
    parted = flow.part(report)
    with pytest.raises(Superseded):
        flow.publish(parted.report)
    assert flow.published() == B


def test_a_raw_version_that_passed_under_a_milder_suite_and_a_split_are_ordered_by_their_delivery(
    flow: Flow,
) -> None:
    old = flow.validate(flow.load(B), DAY)
    flow.run(A)
    with pytest.raises(Superseded):
        flow.publish(old)
    check(flow, A_ACCEPTED, [1, 3])


def test_partitions_that_were_accepted_from_several_deliveries_keep_their_order(flow: Flow) -> None:
    # given: a good day after a bad one, and a report over both accepted days
    other = "2013-01-02"
    flow.part(flow.validate(flow.load(A), DAY))
    flow.part(flow.validate(flow.load(ALSO_BAD, other), other))
    both = flow.validate(head(flow.lake, "flights__accepted"), DAY, other)
    # and: the first day is corrected and published meanwhile
    flow.load(B)
    corrected = flow.validate(head(flow.lake, "flights__raw"), DAY)
    flow.publish(corrected)
    # when: the old report is published
    with pytest.raises(Superseded):
        flow.publish(both)
    assert flow.published() == B
    # and: where nothing newer was published, each day goes on under its own delivery
    again = Flow(flow.lake, table="others", fence=1000)
    again.part(again.validate(again.load(A), DAY))
    again.part(again.validate(again.load(ALSO_BAD, other), other))
    result = again.publish(again.validate(head(again.lake, "others__accepted"), DAY, other))
    assert (again.published(DAY), again.published(other)) == (A_ACCEPTED, ALSO_BAD[1:])
    assert not result.reused
    assert result.record.total_rows == 7


class TestReleases:
    def test_release(self, flow: Flow) -> None:
        flow.run(A)
        released = flow.release(MENDED)
        assert released.report is not None
        flow.publish(released.report)
        check(flow, A_MENDED, [3])
        flow.publish(flow.release({3: (4, "AA")}).report)
        check(flow, [(1, "AA"), (2, "UA"), (3, "UA"), (4, "AA"), (5, "AA")], [])

    def test_release_twice_is_once(self, flow: Flow) -> None:
        flow.run(A)
        first = flow.release(MENDED)
        flow.publish(first.report)
        before = versions(flow)
        again = flow.release(MENDED)
        flow.publish(again.report)
        assert (again.report, again.record) == (first.report, first.record)
        assert versions(flow) == before
        check(flow, A_MENDED, [3])

    def test_release_then_clear(self, flow: Flow) -> None:
        """The whole original run is cleared: ingest, validate with quarantine, publish."""
        flow.run(A)
        flow.publish(flow.release(MENDED).report)
        before = versions(flow)
        parted = flow.run(A)
        assert versions(flow) == before
        check(flow, A_MENDED, [3])
        assert parted.report.outcome is Outcome.PASSED

    def test_release_then_clear_of_the_publish_task_alone(self, flow: Flow) -> None:
        first = flow.run(A)
        flow.publish(flow.release(MENDED).report)
        with pytest.raises(Superseded):
            flow.publish(first.report)
        check(flow, A_MENDED, [3])

    def test_release_that_was_not_published_is_published_by_a_clear(self, flow: Flow) -> None:
        flow.run(A)
        flow.release(MENDED)
        check(flow, A_ACCEPTED, [3], accepted=A_MENDED)
        flow.run(A)
        check(flow, A_MENDED, [3])

    def test_release_then_another_suite(self, flow: Flow) -> None:
        """The mended rows stand in for the raw ones, whatever judges them."""
        flow.run(A)
        flow.publish(flow.release(MENDED).report)
        flow.run(A, suite=f"{HERE}:lenient")
        check(flow, [*A_MENDED[:3], (-4, "AA"), (5, "AA")], [])
        flow.run(A, suite=f"{HERE}:strict")
        check(flow, A_MENDED, [3])

    def test_release_that_a_stricter_suite_refuses_waits_again_until_it_is_mended_again(
        self, flow: Flow
    ) -> None:
        # given: a row mended into something that only the stricter suite refuses
        flow.run(A)
        flow.publish(flow.release({1: (2, "XX")}).report)
        strict = f"{HERE}:strict"
        for _ in range(2):  # the second time it is found
            parted = flow.run(A, suite=strict)
            check(flow, A_ACCEPTED, [1, 3])
            assert parted.record is not None
            assert (parted.record.accepted_rows, parted.record.quarantined_rows) == (3, 2)
        (place,) = list_quarantine(flow.lake)
        assert place.rows == 2
        assert flow.export().column("carrier").to_pylist() == ["XX", "AA"]
        # when
        flow.publish(flow.release(MENDED, suite=strict).report)
        # then
        check(flow, A_MENDED, [3])
        flow.run(A, suite=strict)
        check(flow, A_MENDED, [3])

    def test_release_as_before_of_a_row_that_waits_again_is_another_release(self, flow: Flow) -> None:
        flow.run(A)
        flow.release({1: (2, "XX")})
        flow.run(A, suite=f"{HERE}:strict")
        assert flow.waiting() == [1, 3]
        for _ in range(2):
            flow.publish(flow.release({1: (2, "XX")}).report)
            check(flow, [(1, "AA"), (2, "XX"), (3, "UA"), (5, "AA")], [3])

    def test_release_by_a_milder_suite_is_judged_again_by_the_flows_own(self, flow: Flow) -> None:
        flow.run(A)
        flow.publish(flow.release(None, suite=f"{HERE}:lenient").report)
        check(flow, A, [])
        flow.run(A)
        check(flow, A_ACCEPTED, [1, 3])

    def test_release_of_all_as_they_are_killed_or_not_can_be_asked_for_again(
        self, flow: Flow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flow.run(A)
        lenient = f"{HERE}:lenient"
        with monkeypatch.context() as patch:
            patch.setattr(release_module, "validate", dies_at(1, release_module.validate))
            with pytest.raises(Killed):
                flow.release(None, suite=lenient)
        for _ in range(2):
            flow.publish(flow.release(None, suite=lenient).report)
            check(flow, A, [])

    def test_one_release_too_many_is_refused_before_anything_is_kept(
        self, flow: Flow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tables, "MAX_RELEASES", 1)
        flow.run(A)
        flow.publish(flow.release(MENDED).report)
        with pytest.raises(ArgumentError) as caught:
            flow.release({3: (4, "AA")})
        assert caught.value.code == "argument.too_many_releases"
        flow.run(A)
        check(flow, A_MENDED, [3])

    def test_release_then_corrected_file(self, flow: Flow) -> None:
        flow.run(A)
        flow.publish(flow.release(MENDED).report)
        flow.run(B)
        check(flow, B, [], accepted=[])
        with pytest.raises(NotFoundError):
            flow.release({3: (4, "AA")})

    def test_release_then_corrected_file_then_the_first_one_again(self, flow: Flow) -> None:
        """It is another delivery: what was mended in the first one is not known to hold of it."""
        flow.run(A)
        flow.publish(flow.release(MENDED).report)
        flow.run(B)
        flow.run(A)
        check(flow, A_ACCEPTED, [1, 3])

    def test_corrected_file_that_was_not_validated_yet_leaves_a_release_as_it_is(self, flow: Flow) -> None:
        flow.run(A)
        later = flow.load(ALSO_BAD)
        flow.publish(flow.release(MENDED).report)
        check(flow, A_MENDED, [3])
        flow.check_and_publish(later)
        check(flow, ALSO_BAD[1:], [0])

    @pytest.mark.parametrize(
        ("name", "call", "after"),
        [
            ("_commit_files", 2, False),  # mended rows are kept, nothing else is done
            ("_commit_files", 3, False),  # they have left the quarantine and are not accepted yet
            ("_put_evidence", 1, False),
            ("_put_evidence", 2, False),
            ("_put_evidence", 3, False),
        ],
    )
    @pytest.mark.parametrize("healed_by", ["release", "clear", "another release"])
    def test_release_killed(
        self,
        flow: Flow,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        call: int,
        after: bool,
        healed_by: str,
    ) -> None:
        flow.run(A)
        with monkeypatch.context() as patch:
            patch.setattr(commit_module, name, dies_at(call, getattr(commit_module, name), after=after))
            with pytest.raises(Killed):
                flow.release(MENDED)
        # then: what was mended is not listed as waiting, whatever was done of it
        assert flow.export().column("_xops_row").to_pylist() == [3]
        if healed_by == "release":
            flow.publish(flow.release(MENDED).report)
        elif healed_by == "clear":
            flow.run(A)
        else:
            flow.publish(flow.release({3: (4, "AA")}).report)
            check(flow, [(1, "AA"), (2, "UA"), (3, "UA"), (4, "AA"), (5, "AA")], [])
            return
        check(flow, A_MENDED, [3])

    def test_release_killed_before_anything_was_kept_has_done_nothing(
        self, flow: Flow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flow.run(A)
        with monkeypatch.context() as patch:
            patch.setattr(commit_module, "_commit_files", dies_at(1, commit_module._commit_files))
            with pytest.raises(Killed):
                flow.release(MENDED)
        flow.run(A)
        check(flow, A_ACCEPTED, [1, 3])

    def test_two_releases_at_once_are_both_made(self, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second one runs whole while the first one is between keeping its rows and parting."""
        flow.run(A)
        keep = release_module._keep
        reports: list[ValidationReport | None] = []

        def slow(*args: Any) -> None:
            keep(*args)
            if not reports:
                reports.append(None)
                reports.append(flow.release({3: (4, "AA")}).report)

        monkeypatch.setattr(release_module, "_keep", slow)
        reports.append(flow.release(MENDED).report)
        for report in reports[1:]:
            flow.publish(report)
        check(flow, [(1, "AA"), (2, "UA"), (3, "UA"), (4, "AA"), (5, "AA")], [])

    def test_a_release_that_lost_the_race_parts_again_with_the_winners_rows(
        self, flow: Flow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first one has looked, and is about to commit, when the second one is through."""
        flow.run(A)
        commit = tables.commit
        done: list[bool] = []

        def slow(*args: Any, **kwargs: Any) -> Any:
            if not done:
                done.append(True)
                flow.publish(flow.release({3: (4, "AA")}).report)
            return commit(*args, **kwargs)

        monkeypatch.setattr(tables, "commit", slow)
        flow.publish(flow.release(MENDED).report)
        check(flow, [(1, "AA"), (2, "UA"), (3, "UA"), (4, "AA"), (5, "AA")], [])

    def test_a_clear_that_lost_the_race_against_a_release_has_its_rows(
        self, flow: Flow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An orphan of the original run is about to part anew, by another suite, when a release is made."""
        flow.run(A)
        other = f"{HERE}:mostly"
        report = flow.validate(_raw_version(flow, 0), DAY, suite=other)
        commit = tables.commit
        done: list[bool] = []

        def slow(*args: Any, **kwargs: Any) -> Any:
            if not done:
                done.append(True)
                flow.publish(flow.release(MENDED).report)
            return commit(*args, **kwargs)

        monkeypatch.setattr(tables, "commit", slow)
        parted = flow.part(report, other)
        flow.publish(parted.report)
        check(flow, A_MENDED, [3])


def test_two_splits_by_different_suites_at_once_leave_tables_that_add_up(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one runs whole between the two commits of the first one."""
    raw = flow.load([*A, (6, "XX")])
    strict = f"{HERE}:strict"
    mine, other = flow.validate(raw, DAY), flow.validate(raw, DAY, suite=strict)
    commit = tables.commit
    calls: list[str] = []

    def slow(lake: Lake, table: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(table)
        if len(calls) == 2:
            flow.part(other, strict)
        return commit(lake, table, *args, **kwargs)

    monkeypatch.setattr(tables, "commit", slow)
    flow.publish(flow.part(mine).report)
    check(flow, [*A_ACCEPTED, (6, "XX")], [1, 3])


def _raw_version(flow: Flow, version: int) -> Any:
    from airflow_provider_xops.lake.tables import resolve_ref

    return resolve_ref(flow.lake, "flights__raw", version, allow_raw=True)


def test_a_delivery_without_rows_that_is_skipped_leaves_the_quarantine_as_it_is(flow: Flow) -> None:
    flow.run(A)
    parted = flow.part(flow.validate(flow.load([]), DAY))
    assert parted.report.outcome is Outcome.NO_DATA
    check(flow, A_ACCEPTED, [1, 3])
