"""A suite run over a dataset version, and the report that stays.

For the validate operator and notebooks::

    report = validate(
        lake, ref, suite="my_project.suites:flights", partitions=["2013-01-01"], actor=me, as_of=now
    )
    apply_policy(report, "fail")        # Action.CONTINUE, .FAIL, .SKIP, .QUARANTINE or .BRANCH

    check("day.parquet", "my_project.suites:flights").results     # nothing recorded

The report's identity is what was looked at (content digest), with what (suite digest), by what (engine and
its version), and how it ended: the same question is answered once, and asked again it is read from the
evidence. A report that *errored* answers nothing, so the checks are run again. A table behind a database
connection has no versions: it is asked anew every time.

What it does not do: change data, or decide. That is :mod:`~airflow_provider_xops.quality.policy` and
publishing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import content_digest, partition_digests
from airflow_provider_xops.quality._recording import DocumentOptions, has_samples_of, record_validation
from airflow_provider_xops.quality.engine import EngineRun, get_engine
from airflow_provider_xops.quality.frames import LakeFrame, frame_of
from airflow_provider_xops.quality.policy import Action, apply_policy, stop_error
from airflow_provider_xops.quality.samples import SAMPLE_SIZE
from airflow_provider_xops.quality.suites import load_suite
from airflow_provider_xops.records import Actor, DatasetRef, Outcome, ValidationReport, digest_of

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Action", "LakeFrame", "apply_policy", "check", "stop_error", "validate", "validate_table"]

log = logging.getLogger(__name__)

Suite = str | Callable[[], Any]


def validate(
    lake: Lake,
    ref: DatasetRef,
    *,
    suite: Suite,
    partitions: Sequence[str] | None = None,
    engine: str = "duckdb",
    samples: str = "none",
    sample_size: int = SAMPLE_SIZE,
    data_docs: bool = True,
    actor: Actor,
    as_of: datetime,
) -> ValidationReport:
    """Run a suite and record the report, with its documents beside it.

    :param ref: the version to look at; a raw table's usually.
    :param suite: see :mod:`~airflow_provider_xops.quality.suites`.
    :param partitions: only these; None looks at the whole version.
    :param engine: ``duckdb`` or ``pandas``; see :mod:`~airflow_provider_xops.quality.engine`.
    :param samples: what the documents show of bad values: ``none``, ``masked`` or ``full``; see
        :mod:`~airflow_provider_xops.quality.samples`. Asked for other samples than a known report has (none
        too), the suite runs again and its pages are written beside the first ones.
    :param sample_size: how many of each check at most.
    :param data_docs: write Great Expectations' own page too (``documents["data_docs"]``).
    :param as_of: the time to record (UTC).
    :return: the report; its outcome is *passed*, *failed*, *errored* or *no data*. Bad data raise nothing.
    :raises ArgumentError: the suite, the engine, the samples or the partitions are unusable.
    :raises UserCodeError: the suite's function is; :raises NotFoundError: there is no such version or
        partition.
    """
    options = DocumentOptions.of(samples, sample_size, data_docs)
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
    if known is not None and has_samples_of(known, options):
        log.info("Suite %s was run on these rows of %s before: %s.", known.suite, ref, known.outcome.value)
        return known
    run = runner.run(loaded.checks, frame, examples=options.examples)
    return _logged(record_validation(lake, facts, run, options))


def validate_table(
    lake: Lake,
    *,
    sqlalchemy_engine: sa.Engine,
    source: str,
    table: str,
    schema: str | None = None,
    suite: Suite,
    samples: str = "none",
    sample_size: int = SAMPLE_SIZE,
    data_docs: bool = True,
    actor: Actor,
    as_of: datetime,
) -> ValidationReport:
    """Run a suite on a table behind a database connection; its rows stay there.

    The report's dataset is ``SOURCE:SCHEMA.TABLE`` of version 0, its ``table_uuid`` a digest of the address
    of the database (without credentials), the schema and the table. Such a table has no versions, so the
    content digest names the actor's idempotency key and ``as_of``: it is asked anew every time, and nothing
    can be published from the report. While others write, its statements may see it at several moments.

    :param source: how the report calls the database: the Airflow connection's id.
    :param table: its name, or ``schema.table`` where ``schema`` is None.
    :raises ArgumentError: the suite or the samples are unusable, or there is no such table
        (``argument.table``).
    :raises UnavailableError: the database does not answer (``unavailable.database``).
    """
    from airflow_provider_xops.quality.sql_engine import SqlEngine, SqlTable

    options = DocumentOptions.of(samples, sample_size, data_docs)
    if schema is None and "." in table:
        schema, _, table = table.partition(".")
    loaded = load_suite(suite)
    frame = SqlTable(sqlalchemy_engine, table, schema)
    runner = SqlEngine(sqlalchemy_engine.dialect.name)
    facts: dict[str, Any] = {
        "recorded_at": as_of,
        "produced_by": actor.producer,
        "dataset": DatasetRef(
            lake_id=lake.lake_id, table=f"{source}:{frame}", table_uuid=frame.digest[:32], version=0
        ),
        "partitions": None,
        "partition_digests": (),
        "content_digest": digest_of([frame.digest, actor.idempotency_key, as_of.isoformat()]),
        "suite": loaded.name,
        "suite_digest": loaded.digest,
        "engine": f"{runner.name}/{runner.version}",
        "rows": frame.rows,
    }
    run = runner.run(loaded.checks, frame, examples=options.examples)
    return _logged(record_validation(lake, facts, run, options))


def check(data: Any, suite: Suite, *, engine: str = "duckdb", examples: int = 0) -> EngineRun:
    """Run a suite over what a notebook has; nothing is recorded.

    :param data: paths of Parquet or CSV files, an Arrow table, a pandas data frame.
    :param examples: that many bad values of each check come with its result.

    >>> import pandas as pd
    >>> run = check(pd.DataFrame({"flight": [1, 2]}), "tests.unit.quality.example_suites:small")
    >>> [result.outcome.value for result in run.results]
    ['passed', 'passed']
    """
    return get_engine(engine).run(load_suite(suite).checks, frame_of(data), examples=examples)


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


def _logged(report: ValidationReport) -> ValidationReport:
    counted = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.counts.items() if count)
    log.info(
        "Suite %s on %s (%d rows): %s (%s).",
        report.suite, report.dataset, report.rows, report.outcome.value, counted,
    )  # fmt: skip
    return report


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
