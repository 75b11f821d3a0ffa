"""The operator that looks at a partition on its control charts.

For :mod:`airflow_provider_xops.operators.data`, its public place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.links.evidence import ControlChartsLink, EvidenceLink
from airflow_provider_xops.operators._arguments import is_empty, list_of, mapping_of, one_of
from airflow_provider_xops.operators._base import XOpsOperator, actor_of, now
from airflow_provider_xops.operators._datasets import dataset_of, empty_partition, partitions_of
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.records import ControlChartReport
    from airflow_provider_xops.version_compat import Context

__all__ = ["CheckControlChartsOperator"]

POLICIES = {
    "on_signal": ("warn", "fail", "skip"),
    "on_no_limits": ("continue", "warn", "fail"),
}


class CheckControlChartsOperator(XOpsOperator):
    """Judges the newest partition of a dataset against its own past, on control charts.

    A check says whether a value is allowed; a chart says whether it is *usual*. What the charts need is
    measured first (of earlier partitions too, where it was not). Each signal names its metric, its rule and
    the partition it began with, is logged, and opens one incident; the task links to the page with the
    charts.

    :param dataset: what to look at: a task's output (the partitions that task was asked for), a record id,
        ``TABLE__raw`` or ``TABLE@VERSION``. Give it the raw version, before publishing.
    :param charts: a ``.yaml`` or ``.json`` file, ``package.module:function``, or a list of charts
        (``[{"metric": "row_count", "rules": "nelson"}]``); see
        :mod:`~airflow_provider_xops.quality.control_plan`.
    :param partition: only these partitions; several are judged in the order of time.
    :param metrics: SQL metrics and the column of freshness, where the plan does not name them.
    :param causes: known special causes, besides those of the plan and those noted in the lake.
    :param on_signal: what a signal does. ``warn``: the task succeeds and says so. ``fail``: it fails, without
        retries. ``skip``: it and what follows are skipped.
    :param on_no_limits: what it does that no chart can judge yet: ``continue``, ``warn`` or ``fail``.
    :param incidents: record an incident for each signal.
    :raises ValidationError: ``validation.out_of_control`` or ``validation.no_limits``, where the policy says
        fail.
    :raises ArgumentError: the plan is unusable.

    Returns the record of the newest partition's report, with ``reports``, the record ids of all of them.

    Example::

        CheckControlChartsOperator(task_id="charts", dataset=ingest.output, charts="/opt/charts/flights.yaml")

    What it does not do: it changes no data, and does not say what a signal's cause is.
    """

    required = ("dataset", "charts", "on_signal", "on_no_limits")
    user_code = ("charts",)
    template_fields = (
        *XOpsOperator.template_fields,
        "dataset",
        "charts",
        "partition",
        "metrics",
        "causes",
        "on_signal",
        "on_no_limits",
    )
    operator_extra_links = (ControlChartsLink(), EvidenceLink())

    def __init__(
        self,
        *,
        dataset: Any,
        charts: str | Sequence[Any] | Mapping[str, Any] | Callable[..., Any],
        partition: str | Sequence[str] | None = None,
        metrics: Mapping[str, Any] | str | None = None,
        causes: Sequence[Mapping[str, Any]] = (),
        on_signal: Literal["warn", "fail", "skip"] = "warn",
        on_no_limits: Literal["continue", "warn", "fail"] = "continue",
        incidents: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.charts = charts
        self.partition = partition
        self._partitioned = partition is not None
        self.metrics = metrics
        self.causes = causes
        self.on_signal = on_signal
        self.on_no_limits = on_no_limits
        self.incidents = incidents

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.quality.control import check_partitions, open_chart_incidents

        for name, allowed in POLICIES.items():
            one_of(getattr(self, name), allowed, argument=name)
        lake, actor = self.lake(), actor_of(context)
        named = dataset_of(lake, self.dataset, argument="dataset", allow_raw=True)
        partitions = partitions_of(self.partition)
        if partitions is None and self._partitioned:  # must not turn into all of them
            raise empty_partition("partition")
        reports = check_partitions(
            lake,
            named.ref,
            partitions=partitions or named.partitions,
            plan=self._plan(),
            metrics=self._metrics(),
            actor=actor,
            as_of=now(),
        )
        if self.incidents:
            for incident in open_chart_incidents(lake, reports, actor=actor, as_of=now()):
                self.log.info("Opened incident %s: %s", incident.record_id, incident.subject)
        # The page of the newest partition that signals, else of the newest.
        shown = next((one for one in reversed(reports) if one.outcome is records.Outcome.FAILED), reports[-1])
        self.report_uri = shown.report_uri
        returned = self.hand_over(context, lake, shown, reports=[one.record_id for one in reports[-100:]])
        self._act(reports)
        return returned

    def _act(self, reports: Sequence[ControlChartReport]) -> None:
        from airflow_provider_xops.quality.control import out_of_control

        for report in reports:
            if report.outcome is records.Outcome.PASSED:
                continue
            error = out_of_control(report)
            signals = report.outcome is records.Outcome.FAILED
            policy = self.on_signal if signals else self.on_no_limits
            if policy == "fail":
                raise error
            if policy == "skip":
                raise AirflowSkipException(str(error))
            if policy == "warn":
                self.log.warning("Going on although: %s", error)
            else:
                self.log.info("%s", error.what)

    def _plan(self) -> Any:
        from airflow_provider_xops.quality.control_plan import ControlPlan, load_control_plan

        given = self.charts
        if isinstance(given, str) and given.strip()[:1] == "{":
            given = mapping_of(given, argument="charts")
        elif isinstance(given, str) and given.strip()[:1] == "[":
            given = list_of(given, argument="charts") or ()
        plan = load_control_plan(given)
        causes = list_of(self.causes, argument="causes") or []
        return ControlPlan(charts=plan.charts, causes=[*plan.causes, *causes], metrics=plan.metrics)

    def _metrics(self) -> Any:
        from airflow_provider_xops.quality.metrics import load_metric_plan

        if is_empty(self.metrics):
            return None
        given: Any = self.metrics
        if isinstance(given, str) and given.strip()[:1] == "{":
            given = mapping_of(given, argument="metrics")
        if isinstance(given, Mapping):
            given = {"columns": {}, **given}
        elif not isinstance(given, str):
            raise ArgumentError(
                f"metrics is a {type(given).__name__}", code="argument.metric_plan",
                todo="give a mapping with sql and freshness, or name a file or function",
            )  # fmt: skip
        return load_metric_plan(given)
