"""Which columns of a dataset version look like personal data, by their names and by all of their values.

For the gate ``no_personal_data`` and notebooks. Every value is looked at, in DuckDB, and none of them leaves
it: the report holds names of columns, kinds and shares.

What it does not do: it is no proof that there is none. Names of people in running text, photographs, and what
identifies somebody only together with other columns are not found; names of columns are read as English.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.duckdb_box import open_box, sql_text
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality._personal_detectors import (
    DATE,
    MACROS,
    NAME_RULES,
    NUMBER,
    TEXT,
    VALUE_DETECTORS,
    ValueDetector,
    kind_by_name,
)
from airflow_provider_xops.quality.frames import LakeFrame
from airflow_provider_xops.records import (
    Actor,
    CheckSummary,
    DatasetRef,
    Outcome,
    PersonalDataReport,
    Severity,
    digest_of,
)

__all__ = ["DETECTORS_DIGEST", "search_personal_data"]

log = logging.getLogger(__name__)

#: Changes whenever something else would be found.
DETECTORS_DIGEST = digest_of(
    [
        [dataclasses.asdict(each) for each in VALUE_DETECTORS],
        [dataclasses.asdict(each) for each in NAME_RULES],
        MACROS,
    ]
)


def search_personal_data(
    lake: Lake,
    ref: DatasetRef,
    *,
    columns: Sequence[str] | None = None,
    partitions: Sequence[str] | None = None,
    actor: Actor,
    as_of: datetime,
) -> PersonalDataReport:
    """Look at every value of some columns, and record which columns look personal.

    :param columns: None: all of them. :param partitions: None: all of them.
    :return: one check for each column and kind that was found, ``observed`` the share of its values (None: by
        its name alone); the same question is answered once.
    :raises NotFoundError: no such version or partition.
    :raises ArgumentError: ``argument.column``: no such column.

    >>> search_personal_data(lake, ref, actor=actor, as_of=now).columns[0].check  # doctest: +SKIP
    'personal:email'
    """
    frame = LakeFrame(lake, ref, None if partitions is None else sorted(set(partitions)))
    names = list(frame.schema.names) if columns is None else list(dict.fromkeys(columns))
    missing = [name for name in names if name not in frame.schema.names]
    if missing:
        raise ArgumentError(
            f"{ref} has no columns {missing}",
            code="argument.column",
            todo=f"use some of {frame.schema.names}",
        )
    question = PersonalDataReport(
        recorded_at=as_of,
        produced_by=actor.producer,
        dataset=ref,
        partitions=None if partitions is None else tuple(sorted(set(partitions))),
        searched=tuple(sorted(names)),
        detectors_digest=DETECTORS_DIGEST,
        columns=(),
        rows=frame.rows,
    )
    try:
        known = lake.evidence.get(PersonalDataReport.kind, question.record_id)
    except NotFoundError:
        report = dataclasses.replace(question, columns=tuple(_found(frame, names)))
        lake.evidence.put(report)
        log.info(
            "Searched %d columns of %s for personal data: %d look personal.", len(names), ref,
            len({check.column for check in report.columns}),
        )  # fmt: skip
        return report
    assert isinstance(known, PersonalDataReport)
    return known


def _found(frame: LakeFrame, names: Sequence[str]) -> Iterator[CheckSummary]:
    with tempfile.TemporaryDirectory(prefix="xops-duckdb-") as folder, open_box(folder=Path(folder)) as box:
        for macro in MACROS:
            box.execute(macro)
        for name in sorted(names):
            field = frame.schema.field(name)
            kind = _kind(field.type)
            by_name = kind_by_name(name, kind)
            if by_name is not None:
                yield _check(by_name, name, None, None, "its name says so")
            if kind in (TEXT, NUMBER):
                yield from _by_values(frame, box, name, field.type, kind)


def _by_values(
    frame: LakeFrame, box: Any, name: str, data_type: pa.DataType, kind: str
) -> Iterator[CheckSummary]:
    detectors = [each for each in VALUE_DETECTORS if kind in each.kinds]
    column = '"' + name.replace('"', '""') + '"'
    text = _as_text(column, data_type)
    sums = ", ".join(f"sum(n) FILTER (WHERE {_condition(each)})" for each in detectors)
    relation = frame.relation(box)
    # Each different value is looked at once: most columns have few.
    counted = relation.query(
        "rows",
        f"SELECT sum(n), {sums} FROM (SELECT {text} AS v, count(*) AS n FROM rows"
        f" WHERE {column} IS NOT NULL GROUP BY 1) WHERE v IS NOT NULL",
    ).fetchall()[0]
    total = int(counted[0] or 0)
    for detector, hits in zip(detectors, counted[1:], strict=True):
        count = int(hits or 0)
        if count and count / total >= detector.share:
            yield _check(detector.name, name, count, count / total, "its values look like it")


def _condition(detector: ValueDetector) -> str:
    pattern = sql_text(detector.pattern)
    if detector.whole:
        matched, met = "v", f"regexp_full_match(v, {pattern})"
    else:
        matched, met = f"regexp_extract(v, {pattern}, 0)", f"regexp_matches(v, {pattern})"
    if not detector.check:
        return met
    # CASE, not AND: the check reads digits, and must not be asked of what does not match.
    check = detector.check.replace("{m}", matched)
    return f"CASE WHEN {met} THEN {check} ELSE false END"


def _kind(data_type: pa.DataType) -> str:
    if pa.types.is_integer(data_type) or pa.types.is_floating(data_type) or pa.types.is_decimal(data_type):
        return NUMBER
    if pa.types.is_temporal(data_type):
        return DATE
    return "boolean" if pa.types.is_boolean(data_type) else TEXT


def _as_text(column: str, data_type: pa.DataType) -> str:
    if pa.types.is_floating(data_type) or pa.types.is_decimal(data_type):
        # Whole numbers with missing values are often floats; others have no digits to be a card's.
        return (
            f"CASE WHEN isfinite(CAST({column} AS DOUBLE)) AND abs({column}) < 1e18"
            f" AND {column} = trunc({column}) THEN CAST(CAST({column} AS HUGEINT) AS VARCHAR) END"
        )
    return f"CAST({column} AS VARCHAR)"


def _check(kind: str, column: str, count: int | None, share: float | None, message: str) -> CheckSummary:
    return CheckSummary(
        check=f"personal:{kind}",
        column=column,
        outcome=Outcome.FAILED,
        severity=Severity.CRITICAL,
        observed=share,
        unexpected_count=count,
        unexpected_percent=None if share is None else 100 * share,
        message=message,
    )
