"""A suite run over a dataset version, and the report that stays.

For the validate operator and notebooks::

    report = validate(
        lake, ref, suite="my_project.suites:flights", partitions=["2013-01-01"], actor=me, as_of=now
    )
    apply_policy(report, "fail")        # Action.CONTINUE, .FAIL or .SKIP

The report's identity is what was looked at (content digest), with what (suite digest), by what (engine and
its version), and how it ended: the same question is answered once, and asked again it is read from the
evidence. A report that *errored* answers nothing, so the checks are run again.

What it does not do: change data, or decide. That is :mod:`~airflow_provider_xops.quality.policy` and
publishing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import content_digest, count_rows, partition_digests, scan, schema_of
from airflow_provider_xops.quality.engine import get_engine
from airflow_provider_xops.quality.policy import (
    Action,
    apply_policy,
    stop_error,
    suite_outcome,
    worst_severity,
)
from airflow_provider_xops.quality.report import report_html, report_json
from airflow_provider_xops.quality.suites import load_suite
from airflow_provider_xops.records import Actor, DatasetRef, Outcome, ValidationReport

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Action", "LakeFrame", "apply_policy", "stop_error", "validate"]

log = logging.getLogger(__name__)

FLOAT_WHOLE = 2**53  # from here on a 64-bit float skips whole numbers


class LakeFrame:
    """The rows of some partitions of a dataset version, read when an engine asks for them."""

    def __init__(self, lake: Lake, ref: DatasetRef, partitions: Sequence[str] | None) -> None:
        self._lake = lake
        self._ref = ref
        self._partitions = partitions

    @cached_property
    def schema(self) -> Any:
        """The user's columns."""
        return schema_of(self._lake, self._ref)

    @cached_property
    def rows(self) -> int:
        """How many there are; from the table's log, without reading them."""
        return count_rows(self._lake, self._ref, partitions=self._partitions)

    def pandas(self) -> pd.DataFrame:
        """All rows in memory. Dates are Python dates, times are UTC; whole numbers with missing values are
        floats, or Python integers where a float would not hold one exactly."""
        table = scan(self._lake, self._ref, partitions=self._partitions).read_all()
        exact = {
            name: table.column(name).to_pandas(integer_object_nulls=True)
            for name in table.column_names
            if _outgrows_floats(table.column(name))
        }
        frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
        return frame.assign(**exact)


def _outgrows_floats(column: Any) -> bool:
    """Whether pandas would round whole numbers of the column, because others are missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_int64(column.type) or not column.null_count or column.null_count == len(column):
        return False
    ends = pc.min_max(column)
    return bool(ends["min"].as_py() < -FLOAT_WHOLE or ends["max"].as_py() > FLOAT_WHOLE)


def validate(
    lake: Lake,
    ref: DatasetRef,
    *,
    suite: str | Callable[[], Any],
    partitions: Sequence[str] | None = None,
    engine: str = "pandas",
    actor: Actor,
    as_of: datetime,
) -> ValidationReport:
    """Run a suite and record the report, with a JSON and an HTML document beside it.

    :param ref: the version to look at; a raw table's usually.
    :param suite: see :mod:`~airflow_provider_xops.quality.suites`.
    :param partitions: only these; None looks at the whole version.
    :param as_of: the time to record (UTC).
    :return: the report; its outcome is *passed*, *failed*, *errored* or *no data*. Bad data raise nothing.
    :raises ArgumentError: the suite, the engine or the partitions are unusable.
    :raises UserCodeError: the suite's function is; :raises NotFoundError: there is no such version or
        partition.
    """
    chosen = _chosen(partitions)
    loaded = load_suite(suite)
    runner = get_engine(engine)
    content = content_digest(lake, ref, chosen)
    digests = partition_digests(lake, ref)
    frame = LakeFrame(lake, ref, chosen)
    facts: dict[str, Any] = {
        "recorded_at": as_of,
        "produced_by": actor.producer,
        "dataset": ref,
        "partitions": chosen,
        "partition_digests": tuple(digests[name] for name in (chosen or sorted(digests))),
        "content_digest": content,
        "suite": loaded.name,
        "suite_digest": loaded.digest,
        "engine": f"{runner.name}/{runner.version}",
        "rows": frame.rows,
    }
    known = _known(lake, facts)
    if known is not None:
        log.info("Suite %s was run on these rows of %s before: %s.", known.suite, ref, known.outcome.value)
        return known
    results = runner.run(loaded.checks, frame)
    checks = tuple(result.summary() for result in results)
    report = ValidationReport(
        **facts,
        outcome=suite_outcome(checks, rows=frame.rows),
        severity=worst_severity(checks),
        counts={outcome.value: Counter(check.outcome for check in checks)[outcome] for outcome in Outcome},
        checks=checks,
    )
    folder = f"validations/{report.record_id}"
    page = lake.evidence.put_report(f"{folder}.html", report_html(report, results), content_type="text/html")
    lake.evidence.put_report(f"{folder}.json", report_json(report, results), content_type="application/json")
    report = dataclasses.replace(report, report_uri=page)
    if not lake.evidence.put(report):  # another attempt was faster: its report is the one that is kept
        kept = lake.evidence.get(ValidationReport.kind, report.record_id)
        report = kept if isinstance(kept, ValidationReport) else report
    counted = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.counts.items() if count)
    log.info(
        "Suite %s on %s (%d rows): %s (%s).", report.suite, ref, report.rows, report.outcome.value, counted
    )
    return report


def _known(lake: Lake, facts: Mapping[str, Any]) -> ValidationReport | None:
    """The answer that the evidence has. *Errored* is none: what kept the check from running may be mended."""
    for outcome in (Outcome.PASSED, Outcome.FAILED, Outcome.NO_DATA):
        wanted = ValidationReport(**facts, outcome=outcome, severity=None, counts={})
        try:
            known = lake.evidence.get(ValidationReport.kind, wanted.record_id)
        except NotFoundError:
            continue
        if isinstance(known, ValidationReport):
            return known
    return None


def _chosen(partitions: Sequence[str] | None) -> tuple[str, ...] | None:
    if partitions is None:
        return None
    names = (partitions,) if isinstance(partitions, str) else tuple(partitions)
    if not names or not all(str(name).strip() for name in names):
        raise ArgumentError(
            "no partition to validate is named", code="argument.empty", why="a template rendered to nothing",
            todo="name partitions, or pass None for the whole version",
        )  # fmt: skip
    return tuple(sorted(set(names)))
