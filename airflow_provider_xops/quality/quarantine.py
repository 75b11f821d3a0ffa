"""Bad rows set aside with their reasons; the rest goes on as a version of its own.

For the validate operator (``on_failure="quarantine"``) and notebooks::

    report = validate(lake, raw, suite="my_project.suites:flights", partitions=[day], actor=me, as_of=now)
    parted = quarantine(lake, report, suite="my_project.suites:flights", actor=me, as_of=now)
    publish(lake, parted.report, actor=me, as_of=now)

Of a raw version whose report failed, the rows that break a *critical, row-level* check that failed go to
``<table>__quarantine``, each with its reasons; the others, in their order, become a version of
``<table>__accepted``. That version is validated with the same suite, and its report is the one to publish.
Raw rows are accepted or quarantined, never both and never neither: this is checked before either commit.

Checks of lower severity move no rows. A check that passes thanks to ``mostly`` moves none; one that fails
moves all of its unexpected rows. Checks that judge no single rows (counts, aggregates, columns) are asked
again of the accepted rows, and fail there or not.

Run again, after a crash or a clear, it finds what was done. When a corrected file passes, the quarantine of
its partitions is emptied; rows that people mended come back through
:mod:`~airflow_provider_xops.quality.release`.

What it does not do: publish, or change a row.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.data.places import Place
from airflow_provider_xops.errors import ArgumentError, ValidationError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import RAW_SUFFIX
from airflow_provider_xops.quality._great_expectations import expectation_class
from airflow_provider_xops.quality._quarantine_page import quarantine_html
from airflow_provider_xops.quality.engine import Engine, get_engine, is_row_level
from airflow_provider_xops.quality.policy import stop_error
from airflow_provider_xops.quality.suites import Check, LoadedSuite, load_suite
from airflow_provider_xops.quality.validate import validate
from airflow_provider_xops.records import (
    Actor,
    Outcome,
    QuarantineReport,
    Severity,
    ValidationReport,
    digest_of,
)

if TYPE_CHECKING:
    from airflow_provider_xops.quality._quarantine_rows import Bad, Mended
    from airflow_provider_xops.quality._quarantine_tables import Settled
    from airflow_provider_xops.quality._quarantine_way import Held, Name, Way

__all__ = ["Quarantined", "quarantine"]

log = logging.getLogger(__name__)

# Whether a row breaks one of these depends on other rows.
_COMPARING_ROWS = frozenset(
    {
        "expect_column_value_z_scores_to_be_less_than",
        "expect_column_values_to_be_decreasing",
        "expect_column_values_to_be_increasing",
        "expect_column_values_to_be_unique",
        "expect_compound_columns_to_be_unique",
    }
)


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """What came of it.

    :param report: the report to go on with: of the accepted version, or the one that was given, if nothing
        had to be parted.
    :param record: what was set aside; None if nothing had to be parted.
    """

    report: ValidationReport
    record: QuarantineReport | None


def quarantine(
    lake: Lake,
    report: ValidationReport,
    *,
    suite: str | Callable[[], Any],
    engine: str = "duckdb",
    max_share: float = 0.05,
    samples: str = "none",
    sample_size: int = 20,
    data_docs: bool = True,
    actor: Actor,
    as_of: datetime,
) -> Quarantined:
    """Set aside the bad rows of a raw version, and validate the rest.

    :param report: of a raw version; it must be in the lake's evidence, and what is there counts.
    :param suite: the suite of that report.
    :param max_share: at most this share (0 to 1) of the rows of the report's partitions, taken together, may
        be in quarantine; with more the delivery as a whole is bad.
    :param samples: with ``sample_size`` and ``data_docs`` what is shown in the documents of the report about
        the accepted rows; see :func:`~airflow_provider_xops.quality.validate.validate`.
    :return: a report that passed, or failed below critical severity, may be published. One that still fails
        critically (too few rows are left, say) is returned as it is: the caller's policy decides.
    :raises ValidationError: ``validation.errored``: a check could not run, so nothing is known;
        ``validation.too_many_quarantined``: more than ``max_share`` is bad. Nothing was written.
    :raises ArgumentError: ``argument.not_raw``, ``argument.suite_changed``, ``argument.max_share``.
    :raises DataError: ``data.reserved_column``: a column has a name that the quarantine uses.
    :raises LakeError: ``lake.digest_mismatch``: the raw rows are not those that were written.
    :raises Superseded: newer raw data of a partition have been parted.
    """
    from airflow_provider_xops.quality._quarantine_tables import settle, withdraw
    from airflow_provider_xops.quality._quarantine_way import mended_rows, open_way

    if not 0 <= max_share <= 1:
        raise ArgumentError(
            f"max_share={max_share!r} is not a share of the rows",
            code="argument.max_share",
            todo="give a number from 0 to 1, such as 0.05",
        )
    stored = lake.evidence.get(ValidationReport.kind, report.record_id)
    assert isinstance(stored, ValidationReport)
    loaded = load_suite(suite)
    _check(stored, loaded)
    if stored.outcome is Outcome.ERRORED:
        raise stop_error(stored)
    critical = stored.outcome is Outcome.FAILED and stored.severity is Severity.CRITICAL
    deciding = _deciding(stored, loaded) if critical else []
    way = open_way(lake, stored.dataset, stored.partitions)
    runner = get_engine(engine)
    mended = mended_rows(way)
    if any(map(len, mended.values())):
        deciding = _deciding_of_mended(way, mended, loaded, deciding, runner)
    elif not deciding:
        if not critical and stored.outcome is not Outcome.NO_DATA:  # which may be the end of the flow
            withdraw(way, reports=[stored.record_id], actor=actor, as_of=as_of)
        return Quarantined(report=stored, record=None)
    digest = _digest(way, deciding)

    def guard(count: int, reasons: Callable[[], Mapping[str, int]]) -> None:
        _check_share(way, count, reasons, max_share, stored)

    def checks(_place: Place, _held: Held | None) -> str:
        return digest

    settled = settle(
        way,
        checks=checks,
        find=lambda mended: _find(way, deciding, _names(loaded, deciding), runner, mended, guard),
        guard=lambda bad: guard(sum(map(len, bad.values())), lambda: _reasons_of(bad)),
        suite=f"{loaded.name} {loaded.digest[:16]}",
        reports=[stored.record_id],
        actor=actor,
        as_of=as_of,
    )
    judged = validate(
        lake,
        settled.accepted.ref,
        suite=suite,
        partitions=way.partitions,
        engine=engine,
        samples=samples,
        sample_size=sample_size,
        data_docs=data_docs,
        actor=actor,
        as_of=as_of,
    )
    record = record_of(
        way, settled, loaded, action="quarantined", validation=stored, judged=judged, actor=actor, as_of=as_of
    )
    log.info(
        "Of %d rows of %s, %d are in quarantine (%s) and %d in %s. Set aside for: %s.",
        record.rows, way.raw, record.quarantined_rows, record.quarantine,
        record.accepted_rows, record.accepted,
        ", ".join(f"{name}: {rows}" for name, rows in record.reasons.items())[:500] or "nothing",
    )  # fmt: skip
    return Quarantined(report=judged, record=record)


def record_of(
    way: Way,
    settled: Settled,
    suite: LoadedSuite,
    *,
    action: str,
    validation: ValidationReport | str,
    judged: ValidationReport,
    released_rows: int | None = None,
    reason: str = "",
    actor: Actor,
    as_of: datetime,
) -> QuarantineReport:
    """Record what is where now, with its page. Done before, the record that is there."""
    quarantined = sum(len(each) for each in settled.bad.values())
    if released_rows is None:
        released_rows = sum(len(each) for each in settled.mended.values())
    record = QuarantineReport(
        recorded_at=as_of,
        produced_by=actor.producer,
        action=action,
        raw=way.raw,
        partitions=way.partitions,
        suite=suite.name,
        suite_digest=suite.digest,
        rows=way.rows,
        accepted_rows=way.rows - quarantined,
        quarantined_rows=quarantined,
        reasons=_reasons_of(settled.bad),
        accepted=settled.accepted.ref,
        quarantine=settled.quarantine.ref,
        validation=validation.record_id if isinstance(validation, ValidationReport) else validation,
        judged=judged.record_id,
        released_rows=released_rows,
        reason=reason,
    )
    rows: dict[str, list[int]] = {}
    for place in way.places:
        counted = rows.setdefault(place.partition, [0, 0])
        counted[0] += place.rows
        counted[1] += len(settled.bad[place.name])
    documents = {"Report about the accepted rows": judged.report_uri}
    if isinstance(validation, ValidationReport):
        documents["Report about the raw rows"] = validation.report_uri
    content = quarantine_html(
        record, [(name, total, bad) for name, (total, bad) in sorted(rows.items())], documents
    )
    page = way.lake.evidence.put_report(
        f"{QuarantineReport.kind}/{record.record_id}.html", content, content_type="text/html"
    )
    record = dataclasses.replace(record, report_uri=page)
    if not way.lake.evidence.put(record):
        kept = way.lake.evidence.get(QuarantineReport.kind, record.record_id)
        record = kept if isinstance(kept, QuarantineReport) else record
    return record


def write_standing(way: Way, mended: Mapping[Name, Mended], left_out: Mapping[Name, Bad], path: Path) -> None:
    """All rows of ``way`` with the mended ones in their places, without ``left_out``, into a Parquet file."""
    import pyarrow.parquet as pq

    from airflow_provider_xops.quality._quarantine_rows import accepted_rows

    # Without statistics: NaN is in no minimum and no maximum, and DuckDB would believe them.
    with pq.ParquetWriter(path, way.schema, compression="zstd", write_statistics=False) as writer:
        for place in way.places:
            given = (way.lake, way.raw, way.schema, place, mended[place.name], left_out[place.name])
            for batch in accepted_rows(*given):
                writer.write_batch(batch)


def _reasons_of(bad: Mapping[Name, Bad]) -> dict[str, int]:
    import pyarrow as pa

    from airflow_provider_xops.quality._quarantine_rows import count_reasons

    return count_reasons(pa.chunked_array([each.reasons for each in bad.values()], pa.string()))


def _check(report: ValidationReport, suite: LoadedSuite) -> None:
    if not report.dataset.table.endswith(RAW_SUFFIX):
        raise ArgumentError(
            f"{report.dataset} is not a version of a raw table", code="argument.not_raw",
            why="rows are set aside on their way from a raw table to its published one",
            todo="validate the version that an ingestion returned",
        )  # fmt: skip
    if report.suite_digest != suite.digest:
        raise ArgumentError(
            f"suite {suite.name} is not the one of report {report.record_id}", code="argument.suite_changed",
            why="its checks have changed since", todo="validate again",
        )  # fmt: skip


def _deciding(report: ValidationReport, suite: LoadedSuite) -> list[Check]:
    """The critical row-level checks that failed. A report tells of the suite's checks in their order."""
    return [
        check
        for check, summary in zip(suite.checks, report.checks, strict=True)
        if summary.outcome is Outcome.FAILED and check.severity is Severity.CRITICAL and is_row_level(check)
    ]


def _deciding_of_mended(
    way: Way, mended: Mapping[Name, Mended], suite: LoadedSuite, deciding: Sequence[Check], engine: Engine
) -> list[Check]:
    """``deciding``, and what fails only because of mended rows, which the report does not know."""
    from airflow_provider_xops.quality.frames import FileFrame

    asked = [check for check in _may_decide(suite) if check not in deciding]
    if not asked:
        return list(deciding)
    with way.lake.storage.scratch() as scratch:
        write_standing(way, mended, _nothing_bad(way), scratch / "rows.parquet")
        results = engine.run(asked, FileFrame(scratch / "rows.parquet")).results
    failed = [result.check for result in results if result.outcome is Outcome.FAILED]
    return [check for check in suite.checks if check in deciding or check in failed]


def _digest(way: Way, checks: Sequence[Check]) -> str:
    """What identifies these checks, as judges of these places."""
    asked: list[Any] = [[check.type, dict(check.kwargs)] for check in checks]
    if any(_compares_rows(check) for check in checks):
        asked.append([[*place.name, way.origin(place)] for place in way.places])
    return digest_of(asked)[:32]


def _compares_rows(check: Check) -> bool:
    """Whether a row may be bad because of other rows, those of other partitions too."""
    found = expectation_class(check.type)
    known = found is not None and found.__module__.startswith("great_expectations.")
    return not known or check.type in _COMPARING_ROWS


def _nothing_bad(way: Way) -> dict[Name, Bad]:
    from airflow_provider_xops.quality._quarantine_rows import found_bad

    names = (place.name for place in way.places)
    return dict(zip(names, found_bad([], [], way.places), strict=True))


def _may_decide(suite: LoadedSuite) -> list[Check]:
    return [check for check in suite.checks if check.severity is Severity.CRITICAL and is_row_level(check)]


def _names(suite: LoadedSuite, checks: Sequence[Check]) -> list[str]:
    """Names for reasons. Numbered by the suite, so that they mean the same check whichever others failed."""
    from airflow_provider_xops.quality._quarantine_rows import check_names

    possible = _may_decide(suite)
    names = check_names(possible)
    return [names[next(at for at, each in enumerate(possible) if each is check)] for check in checks]


def _find(
    way: Way,
    checks: Sequence[Check],
    names: Sequence[str],
    engine: Engine,
    mended: Mapping[Name, Mended],
    guard: Callable[[int, Callable[[], Mapping[str, int]]], None],
) -> dict[Name, Bad]:
    """The rows that break one of ``checks``; mended ones are looked at as they are now."""
    from airflow_provider_xops.quality._quarantine_rows import any_of, found_bad
    from airflow_provider_xops.quality.frames import FileFrame, LakeFrame

    if not checks:
        return _nothing_bad(way)
    if not any(len(each) for each in mended.values()):
        rows = engine.unexpected_rows(checks, LakeFrame(way.lake, way.raw, way.partitions))
    else:
        with way.lake.storage.scratch() as scratch:
            write_standing(way, mended, _nothing_bad(way), scratch / "rows.parquet")
            rows = engine.unexpected_rows(checks, FileFrame(scratch / "rows.parquet"))
    # Asked before the reasons are written down: of a delivery that is all bad they are more than its rows.
    guard(len(any_of(rows, way.rows)), lambda: dict(zip(names, map(len, rows), strict=True)))
    found = found_bad(names, rows, way.places)
    return {place.name: bad for place, bad in zip(way.places, found, strict=True)}


def _check_share(
    way: Way,
    count: int,
    reasons: Callable[[], Mapping[str, int]],
    max_share: float,
    report: ValidationReport,
) -> None:
    if not count or count / way.rows <= max_share:  # divided: 0.29 * 100 is less than 29
        return
    allowed = f"{100 * max_share:.4g} %"
    raise ValidationError(
        f"{count} of {way.rows} rows of {way.raw} are bad, and at most {allowed} may be set aside",
        code="validation.too_many_quarantined",
        why="; ".join(f"{name}: {rows} rows" for name, rows in reasons().items() if rows)[:500],
        todo="correct the data at their source, or allow more (the operator's max_quarantined)"
        + (f"; the report is at {report.report_uri}" if report.report_uri else ""),
        context={"record_id": report.record_id, "quarantined": count, "rows": way.rows},
    )
