"""Operators that judge data and let through what passed: validate, publish.

For :mod:`airflow_provider_xops.operators.data`, their public place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.links.evidence import (
    DataDocsLink,
    EvidenceLink,
    QuarantineReportLink,
    ValidationReportLink,
)
from airflow_provider_xops.operators._arguments import is_empty, mapping_of, number, one_of, whole_number
from airflow_provider_xops.operators._base import XOpsOperator, actor_of, now
from airflow_provider_xops.operators._branching import branches_of, check_downstream, follow
from airflow_provider_xops.operators._database import sqlalchemy_engine_of
from airflow_provider_xops.operators._datasets import asked_for, dataset_of, empty_partition, partitions_of
from airflow_provider_xops.operators._openlineage import validation_lineage
from airflow_provider_xops.version_compat import AirflowSkipException, BranchMixIn

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["PublishDatasetOperator", "ValidateDatasetOperator"]

SAMPLES = ("none", "masked", "full")
BRANCH = "branch"
QUARANTINE = "quarantine"


class ValidateDatasetOperator(XOpsOperator, BranchMixIn):
    """Runs an expectation suite over a dataset version, or a table of a database, and records the report.

    The report says ``passed``, ``failed``, ``errored`` (a check could not run) or ``no_data``. Whatever it
    says, it is in the lake before the task ends, and the task links to its pages.

    :param dataset: what to look at: a task's output (the partitions that task was asked for), a record id,
        ``TABLE__raw`` or ``TABLE@VERSION``.
    :param suite: ``package.module:function`` giving a Great Expectations suite, or a ``.json`` or ``.yaml``
        file of one.
    :param partition: only these partitions.
    :param table: instead of ``dataset``: a table (``schema.table``) of the database behind ``sql_conn_id``.
        Its rows stay there; such a report is made anew every time, and nothing is published from it.
    :param sql_conn_id: the Airflow connection of that database.
    :param on_failure: what failed checks do: one word, about critical ones, or a mapping of severities
        (``critical``, ``warning``, ``info``) to words. ``fail``: the task fails, without retries. ``warn``:
        it succeeds and says so (publishing still refuses critical failures). ``skip``: it and what follows
        are skipped. ``quarantine`` (critical only): bad rows go to ``TABLE__quarantine``, and the task
        returns the report about the rest. ``branch``: see ``branches``.
    :param on_error: what a check that could not run does: ``fail``, ``warn`` or ``branch``.
    :param on_no_data: what a version without rows does: ``skip``, ``continue``, ``fail`` or ``branch``.
    :param branches: with a policy that says ``branch``: outcome to ids of tasks (or task groups) directly
        downstream; the others directly downstream are skipped. ``passed`` and ``failed`` are needed; naming
        ``errored`` or ``no_data`` makes their policy ``branch``. An outcome whose policy goes on takes the
        branch of ``passed``.
    :param max_quarantined: with ``quarantine``: the share of rows (0 to 1) above which the whole delivery is
        bad and the task fails.
    :param engine: what runs the suite: ``duckdb`` (the default), ``pandas``; ``sql`` for a ``table``.
    :param samples: what the report's pages show of bad values: ``none``, ``masked`` or ``full``. They are
        never in XCom, events or logs.
    :param sample_size: how many of each check at most.
    :param data_docs: write Great Expectations' own page too.
    :raises ValidationError: the data failed and the policy is ``fail``, a check errored, or too much is bad.
    :raises UserCodeError: there is no such suite.

    Returns the record of the report; after a quarantine that of the accepted rows, and ``quarantined`` says
    how many rows are set aside and in which record.

    Example::

        ValidateDatasetOperator(task_id="check", dataset=ingest.output, suite="my_package.suites:flights")

    What it does not do: it changes no data, and a suite that could not run never counts as passed. A mapped
    task cannot branch (Airflow has no branches of mapped tasks).
    """

    required = ("suite", "on_failure")
    user_code = ("suite",)
    template_fields = (
        *XOpsOperator.template_fields,
        "dataset",
        "suite",
        "partition",
        "table",
        "sql_conn_id",
        "on_failure",
        "engine",
        "samples",
        "sample_size",
        "max_quarantined",
    )
    operator_extra_links = (ValidationReportLink(), DataDocsLink(), QuarantineReportLink(), EvidenceLink())
    # Where the scheduler looks whether a task may have skipped others (tasks that are cleared later).
    inherits_from_skipmixin = True

    # Set while performing, for the links and for OpenLineage.
    data_docs_uri: str | None = None
    quarantine_uri: str | None = None
    lineage_report: records.ValidationReport | None = None

    def __init__(
        self,
        *,
        dataset: Any = None,
        suite: str | Callable[..., Any],
        partition: str | Sequence[str] | None = None,
        table: str | None = None,
        sql_conn_id: str | None = None,
        on_failure: str | Mapping[str, str] = "fail",
        on_error: str = "fail",
        on_no_data: str = "skip",
        branches: Mapping[str, str | Sequence[str]] | None = None,
        max_quarantined: float = 0.05,
        engine: str | None = None,
        samples: str = "none",
        sample_size: int = 20,
        data_docs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.suite = suite
        self.partition = partition
        self._partitioned = partition is not None
        self.table = table
        self._of_database = table is not None or sql_conn_id is not None
        self.sql_conn_id = sql_conn_id
        self.on_failure = on_failure
        self.on_error = on_error
        self.on_no_data = on_no_data
        self.branches = branches
        self.max_quarantined = max_quarantined
        self.engine = engine
        self.samples = samples
        self.sample_size = sample_size
        self.data_docs = data_docs

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.quality.policy import Action, apply_policy, branch_of, stop_error

        policies, branches = self._policies()
        quarantines = policies["on_failure"].get(records.Severity.CRITICAL.value) == QUARANTINE
        lake = self.lake()
        report = self._validated(context, lake)
        self._remember(lake, report)
        more: dict[str, Any] = {}
        if quarantines and report.outcome is not records.Outcome.ERRORED:
            report, more = self._parted(context, lake, report)
            self._remember(lake, report)
            # What still fails critically fails as a whole: too few rows are left, for one.
            policies["on_failure"] = {**policies["on_failure"], records.Severity.CRITICAL.value: "fail"}
        returned = self.hand_over(context, lake, report, **more)
        action = apply_policy(report, **policies)
        if action is Action.SKIP:
            raise AirflowSkipException(str(stop_error(report)))
        if action is Action.FAIL:
            raise stop_error(report)
        if report.outcome is not records.Outcome.PASSED:
            self.log.warning("Going on although: %s", stop_error(report))
        if action is Action.BRANCH:
            return follow(self, context, branches[branch_of(report, **policies)], returned)
        return returned

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Every check as an assertion about the dataset; nothing where OpenLineage is not installed."""
        return validation_lineage(self.lineage_report, self.lake_conn_id)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """The same: the report is there although the task failed because of it."""
        return validation_lineage(self.lineage_report, self.lake_conn_id)

    def _policies(self) -> tuple[dict[str, Any], dict[str, list[str]]]:
        """The policies and branches, refused before anything is looked at."""
        from airflow_provider_xops.quality.policy import POLICIES, check_policy

        given = self.on_failure
        if isinstance(given, str) and not given.strip().startswith("{"):
            words = {
                records.Severity.CRITICAL.value: one_of(given, POLICIES["on_failure"], argument="on_failure")
            }
        else:
            words = dict(mapping_of(given, argument="on_failure"))
        policies: dict[str, Any] = {"on_failure": words}
        for name in ("on_error", "on_no_data"):
            policies[name] = one_of(getattr(self, name), POLICIES[name], argument=name)
        named = self.branches if isinstance(self.branches, Mapping) else {}
        for name, outcome in (("on_error", records.Outcome.ERRORED), ("on_no_data", records.Outcome.NO_DATA)):
            if outcome.value in named:
                policies[name] = BRANCH
            elif policies[name] == BRANCH:
                raise ArgumentError(
                    f"{name} is 'branch' and branches has none for {outcome.value}",
                    code="argument.branches",
                    todo="name its tasks, or [] to go on with none",
                )
        check_policy(**policies)
        needed = BRANCH in {*words.values(), policies["on_error"], policies["on_no_data"]}
        branches = branches_of(self.branches, needed=needed)
        check_downstream(self, branches)
        if self._of_database and QUARANTINE in words.values():
            raise ArgumentError(
                "on_failure is 'quarantine' for a table of a database",
                code="argument.on_failure",
                why="only rows of the lake are set aside",
                todo="ingest the table first and validate what the ingestion returned",
            )
        return policies, branches

    def _validated(self, context: Context, lake: Lake) -> records.ValidationReport:
        from airflow_provider_xops.quality.validate import validate, validate_table

        self.samples = one_of(self.samples, SAMPLES, argument="samples")
        common: dict[str, Any] = {
            "suite": self.suite,
            "samples": self.samples,
            "sample_size": whole_number(self.sample_size, argument="sample_size") or 0,
            "data_docs": self.data_docs,
            "actor": actor_of(context),
            "as_of": now(),
        }
        if self._of_database:
            for name in ("table", "sql_conn_id"):
                if is_empty(getattr(self, name)):
                    raise ArgumentError(
                        f"{name} of task {self.task_id} is empty", code="argument.empty",
                        todo="a table of a database needs both table and sql_conn_id",
                    )  # fmt: skip
            if not is_empty(self.dataset) or self._partitioned:
                raise ArgumentError(
                    "both a dataset and a table of a database are given", code="argument.dataset",
                    todo="give dataset (with partition), or table with sql_conn_id",
                )  # fmt: skip
            if not is_empty(self.engine):
                one_of(self.engine, ("sql",), argument="engine")
            with sqlalchemy_engine_of(str(self.sql_conn_id)) as engine:
                return validate_table(
                    lake,
                    sqlalchemy_engine=engine,
                    source=str(self.sql_conn_id),
                    table=str(self.table),
                    **common,
                )
        named = dataset_of(lake, self.dataset, argument="dataset", allow_raw=True)
        partitions = partitions_of(self.partition)
        if partitions is None and self._partitioned:  # must not turn into all of them
            raise empty_partition("partition")
        return validate(
            lake, named.ref, partitions=partitions or named.partitions, engine=self._engine(), **common
        )

    def _parted(
        self, context: Context, lake: Lake, report: records.ValidationReport
    ) -> tuple[records.ValidationReport, dict[str, Any]]:
        from airflow_provider_xops.quality.quarantine import quarantine

        parted = quarantine(
            lake,
            report,
            suite=self.suite,
            engine=self._engine(),
            max_share=number(self.max_quarantined, argument="max_quarantined") or 0,
            samples=self.samples,
            sample_size=whole_number(self.sample_size, argument="sample_size") or 0,
            data_docs=self.data_docs,
            actor=actor_of(context),
            as_of=now(),
        )
        if parted.record is None:
            return parted.report, {}
        self.quarantine_uri = parted.record.report_uri
        told = {"rows": parted.record.quarantined_rows, "record_id": parted.record.record_id}
        return parted.report, {"quarantined": told}

    def _engine(self) -> str:
        return "duckdb" if is_empty(self.engine) else str(self.engine)

    def _remember(self, lake: Lake, report: records.ValidationReport) -> None:
        # For the links of a task that fails before it hands over too: that is when somebody looks.
        self.evidence_uri = lake.evidence.uri(report)
        self.lineage_report = report
        self.report_uri = report.report_uri
        self.data_docs_uri = report.documents.get("data_docs")


class PublishDatasetOperator(XOpsOperator):
    """Brings exactly the partitions that a report passed from the raw table to the published one, once.

    :param report: the output of a ``ValidateDatasetOperator``, or a report's record id.
    :param allow_warning: publish also what failed only checks below critical severity.
    :param allow_empty: publish also what had no rows, which empties those partitions.
    :raises ValidationError: the report did not pass; :raises LakeError: the raw data are not those that were
        validated;
        :raises Superseded: newer raw data of a partition were published meanwhile.

    Returns the record of the published version, with ``reused``. Its asset event starts the consumers; it is
    not emitted when another run had published the same data before.

    Example::

        PublishDatasetOperator(task_id="publish", report=check.output, outlets=[Asset("flights")])

    What it does not do: it changes no row, and validates nothing itself.
    """

    required = ("report",)
    template_fields = (*XOpsOperator.template_fields, "report")
    operator_extra_links = (EvidenceLink(),)

    def __init__(
        self, *, report: Any, allow_warning: bool = True, allow_empty: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.report = report
        self.allow_warning = allow_warning
        self.allow_empty = allow_empty

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.data.publish import publish

        lake = self.lake()
        report = self.record(lake, self.report, records.ValidationReport, argument="report")
        result = publish(
            lake,
            report,
            allow_warning=self.allow_warning,
            allow_empty=self.allow_empty,
            actor=actor_of(context),
            as_of=now(),
        )
        what = asked_for(list(report.partitions) if report.partitions else None)
        return self.hand_over(context, lake, result.record, reused=result.reused, **what)
