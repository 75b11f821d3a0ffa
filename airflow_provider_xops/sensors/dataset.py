"""Sensors that wait for datasets.

For DAGs that run by the clock and need a table that something else fills. A DAG that should simply run when a
dataset changes needs no sensor: schedule it on the dataset's asset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops.errors import ArgumentError, UnavailableError, XOpsError
from airflow_provider_xops.hooks.lake import LakeHook
from airflow_provider_xops.operators._arguments import is_empty, mapping_of, one_of
from airflow_provider_xops.operators._base import actor_of, as_airflow_error, now
from airflow_provider_xops.operators._datasets import empty_partition, partitions_of
from airflow_provider_xops.version_compat import (
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

if TYPE_CHECKING:
    from airflow_provider_xops.quality.waiting import Look, Wait
    from airflow_provider_xops.version_compat import Context

__all__ = ["DatasetFreshnessSensor"]


class DatasetFreshnessSensor(BaseSensorOperator):
    """Waits until a table is fresh: partitions are there, or its newest commit is young enough.

    Give ``partition``, ``schedule``, ``max_age`` or a combination; all that is given must hold. With a
    schedule the wait knows when the data are late; without one only ``timeout`` ends it.

    :param table: the table, ``flights``; or a raw one, ``flights__raw``.
    :param partition: wait for these: a name (``"{{ ds }}"``), a range of days or a list.
    :param schedule: when partitions are expected: ``daily``, ``15m``, a cron expression, a mapping of
        :class:`~airflow_provider_xops.quality.arrival_schedule.ArrivalSchedule`'s fields, or a ``.yaml``
        file. Without ``partition``, the newest one is waited for whose period had ended when the run was
        due.
    :param max_age: the newest commit may be at most so old: a timedelta, or seconds.
    :param on_late: what it does that something was due and is not there. ``fail``: the task fails, without
        retries. ``skip``: it and what follows are skipped. ``wait``: it goes on waiting until ``timeout``.
    :param incident: record an incident for each partition that is late.
    :param patience: how many looks in a row may find the storage silent before the task fails (and is
        retried). In the mode ``reschedule`` nobody counts: ``timeout`` ends it.
    :param deferrable: wait in the triggerer, without a worker slot; None: as ``[operators]
        default_deferrable`` says.
    :param lake_conn_id: the Airflow connection of the lake.
    :raises DataError: ``data.late``: what was due is not there, and ``on_late`` is ``fail``.
    :raises ArgumentError: nothing to wait for, or a schedule that is none.

    Further arguments are those of every sensor: ``poke_interval``, ``timeout``, ``mode``, ``soft_fail``.

    Returns what was found: table, version, partitions, age of the newest commit in seconds.

    Example::

        DatasetFreshnessSensor(
            task_id="wait", table="flights", partition="{{ ds }}",
            schedule={"every": "daily", "timezone": "America/New_York", "grace": "6h"},
            deferrable=True,
        )

    What it does not do: look at the data. A partition that arrived without rows has arrived.
    """

    template_fields: Sequence[str] = ("lake_conn_id", "table", "partition", "schedule", "max_age", "on_late")
    ui_color = "#e8f1ee"

    def __init__(
        self,
        *,
        table: str,
        partition: str | Sequence[str] | None = None,
        schedule: str | Mapping[str, Any] | None = None,
        max_age: timedelta | float | str | None = None,
        on_late: Literal["fail", "skip", "wait"] = "fail",
        incident: bool = True,
        patience: int = 5,
        lake_conn_id: str = LakeHook.default_conn_name,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.partition = partition
        self._partitioned = partition is not None
        self.schedule = schedule
        self.max_age = max_age
        self.on_late = on_late
        self.incident = incident
        self.patience = patience
        self.lake_conn_id = lake_conn_id
        self.deferrable = deferrable
        self._failures = 0

    def execute(self, context: Context) -> Any:
        """Look once, then wait: in the triggerer where it is deferrable, else as sensors do."""
        try:
            wait = self._wait(context)
            deferrable = self.deferrable
            if deferrable is None:
                deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
            if not deferrable:
                return super().execute(context)
            found = self._look(wait)
            if found is not None and self._is_over(found):
                return self._end(context, found)
        except XOpsError as error:
            raise as_airflow_error(error) from error
        from airflow_provider_xops.triggers.dataset import DatasetFreshnessTrigger

        self.defer(
            trigger=DatasetFreshnessTrigger(
                lake_conn_id=self.lake_conn_id,
                wait=wait.to_json(),
                poke_interval=self.poke_interval,
                give_up_when_late=self.on_late != "wait",
                patience=self.patience,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """One look, in a worker."""
        try:
            found = self._look(self._wait(context))
            if found is None or not self._is_over(found):
                return False
            return PokeReturnValue(is_done=True, xcom_value=self._end(context, found))
        except XOpsError as error:
            raise as_airflow_error(error) from error

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Continue when the trigger has something to tell."""
        from airflow_provider_xops.quality.waiting import Look

        try:
            if event["status"] == "error":
                raise _error_of(event["error"])
            return self._end(context, Look.from_json(event))
        except XOpsError as error:
            raise as_airflow_error(error) from error

    def _wait(self, context: Context) -> Wait:
        from airflow_provider_xops.quality.arrival_schedule import load_schedule
        from airflow_provider_xops.quality.waiting import Wait

        one_of(self.on_late, ("fail", "skip", "wait"), argument="on_late")
        if is_empty(self.table):
            raise ArgumentError(
                f"table of task {self.task_id} is empty", code="argument.empty",
                why="its template rendered to nothing", todo="give table a value",
            )  # fmt: skip
        partitions = partitions_of(self.partition)
        if partitions is None and self._partitioned:
            raise empty_partition("partition")
        schedule: Any = None if is_empty(self.schedule) else self.schedule
        if isinstance(schedule, str) and schedule.strip()[:1] == "{":
            schedule = mapping_of(schedule, argument="schedule")
        return Wait(
            table=str(self.table).strip(),
            partitions=partitions,
            schedule=load_schedule(schedule),
            max_age=_duration(self.max_age),
            since=_began(context),
        )

    def _look(self, wait: Wait) -> Look | None:
        """What is there now; None where the storage did not answer and there is patience left."""
        from airflow_provider_xops.quality.waiting import look

        try:
            found = look(LakeHook(self.lake_conn_id).get_lake(), wait, as_of=now())
        except XOpsError as error:
            self._failures += 1
            if not error.retryable or self._failures > self.patience:
                raise
            self.log.warning("Look %d in a row failed, trying again: %s", self._failures, error)
            return None
        self._failures = 0
        self.log.info("%s", found)
        return found

    def _is_over(self, found: Look) -> bool:
        return found.status == "fresh" or (found.status == "late" and self.on_late != "wait")

    def _end(self, context: Context, found: Look) -> dict[str, Any]:
        from airflow_provider_xops.quality.waiting import late_error, open_late_incidents

        if found.status == "fresh":
            return found.to_json()
        if self.incident:
            lake = LakeHook(self.lake_conn_id).get_lake()
            for opened in open_late_incidents(lake, found, actor=actor_of(context), as_of=now()):
                self.log.warning("Opened incident %s: %s", opened.record_id, opened.message)
        error = late_error(found)
        if self.on_late == "skip":
            raise AirflowSkipException(str(error))
        raise error


def _began(context: Context) -> datetime:
    """When the wait began: when the run was due, so that a cleared task waits for the same data again."""
    run_after = getattr(context.get("dag_run"), "run_after", None)
    began: datetime = run_after or context["ti"].start_date or now()
    return began.astimezone(UTC)


def _duration(given: timedelta | float | str | None) -> timedelta | None:
    from airflow_provider_xops.operators._arguments import number

    if isinstance(given, timedelta) or is_empty(given):
        return given if isinstance(given, timedelta) else None
    seconds = number(given, argument="max_age")
    return None if seconds is None else timedelta(seconds=seconds)


def _error_of(data: Mapping[str, Any]) -> XOpsError:
    """The error that the trigger met; its class does not matter any more, whether to retry does."""
    kind = UnavailableError if data["retryable"] else XOpsError
    return kind(
        data["what"],
        code=data["code"],
        why=data["why"],
        todo=data["todo"],
        retryable=data["retryable"],
        context=data["context"],
    )
