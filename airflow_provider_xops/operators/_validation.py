"""Operators that judge data and let through what passed: validate, publish.

For :mod:`airflow_provider_xops.operators.data`, their public place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops.links.evidence import EvidenceLink, ValidationReportLink
from airflow_provider_xops.operators._arguments import one_of
from airflow_provider_xops.operators._base import XOpsOperator, actor_of, now
from airflow_provider_xops.operators._datasets import asked_for, dataset_of, empty_partition, partitions_of
from airflow_provider_xops.records import Outcome, ValidationReport
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Context

__all__ = ["PublishDatasetOperator", "ValidateDatasetOperator"]

POLICIES = {
    "on_failure": ("fail", "warn", "skip"),
    "on_error": ("fail", "warn"),
    "on_no_data": ("skip", "continue", "fail"),
}


class ValidateDatasetOperator(XOpsOperator):
    """Runs an expectation suite over a dataset version and records the report.

    The report says ``passed``, ``failed``, ``errored`` (a check could not run) or ``no_data``. Whatever it
    says, it is in the lake before the task ends, and the task links to its page.

    :param dataset: what to look at: a task's output (the partitions that task was asked for), a record id,
        ``TABLE__raw`` or ``TABLE@VERSION``.
    :param suite: ``package.module:function`` giving a Great Expectations suite, or a ``.json`` or ``.yaml``
        file of one.
    :param partition: only these partitions.
    :param on_failure: what a failed critical check does. ``fail``: the task fails, without retries. ``warn``:
        it succeeds and says so (publishing still refuses). ``skip``: it and what follows are skipped.
    :param on_error: what a check that could not run does: ``fail`` or ``warn``.
    :param on_no_data: what a version without rows does: ``skip``, ``continue`` or ``fail``.
    :param engine: what runs the suite: ``pandas``.
    :raises ValidationError: the data failed and the policy is ``fail``, or a check errored.
    :raises UserCodeError: there is no such suite.

    Returns the record of the report.

    Example::

        ValidateDatasetOperator(task_id="check", dataset=ingest.output, suite="my_package.suites:flights")

    What it does not do: it changes no data, and a suite that could not run never counts as passed.
    """

    required = ("dataset", "suite", "on_failure")
    user_code = ("suite",)
    template_fields = (*XOpsOperator.template_fields, "dataset", "suite", "partition", "on_failure", "engine")
    operator_extra_links = (ValidationReportLink(), EvidenceLink())

    def __init__(
        self,
        *,
        dataset: Any,
        suite: str | Callable[..., Any],
        partition: str | Sequence[str] | None = None,
        on_failure: Literal["fail", "warn", "skip"] = "fail",
        on_error: Literal["fail", "warn"] = "fail",
        on_no_data: Literal["skip", "continue", "fail"] = "skip",
        engine: str = "pandas",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.suite = suite
        self.partition = partition
        self._partitioned = partition is not None
        self.on_failure = on_failure
        self.on_error = on_error
        self.on_no_data = on_no_data
        self.engine = engine

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.quality.policy import Action, apply_policy, stop_error
        from airflow_provider_xops.quality.validate import validate

        for name, allowed in POLICIES.items():
            one_of(getattr(self, name), allowed, argument=name)
        lake = self.lake()
        named = dataset_of(lake, self.dataset, argument="dataset", allow_raw=True)
        partitions = partitions_of(self.partition)
        if partitions is None and self._partitioned:  # must not turn into all of them
            raise empty_partition("partition")
        report = validate(
            lake,
            named.ref,
            partitions=partitions or named.partitions,
            suite=self.suite,
            engine=self.engine,
            actor=actor_of(context),
            as_of=now(),
        )
        self.report_uri = report.report_uri
        returned = self.hand_over(context, lake, report)
        action = apply_policy(report, self.on_failure, on_error=self.on_error, on_no_data=self.on_no_data)
        if action is Action.CONTINUE:
            if report.outcome is not Outcome.PASSED:
                self.log.warning("Going on although: %s", stop_error(report))
            return returned
        if action is Action.SKIP:
            raise AirflowSkipException(str(stop_error(report)))
        raise stop_error(report)


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
        report = self.record(lake, self.report, ValidationReport, argument="report")
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
