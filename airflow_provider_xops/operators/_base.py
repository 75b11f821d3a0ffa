"""What every operator of this package does alike: errors, the actor, records into XCom and asset events.

For the operators only. An operator implements ``perform``: resolve connections, call one function of the
domain, hand the record to :meth:`XOpsOperator.hand_over`, return what that gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError, DataError, NotFoundError, XOpsError
from airflow_provider_xops.hooks.lake import LakeHook
from airflow_provider_xops.hooks.mlflow import MlflowHook
from airflow_provider_xops.operators._arguments import is_empty
from airflow_provider_xops.version_compat import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    Asset,
    AssetAlias,
    AssetRef,
    BaseOperator,
)

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.version_compat import Context

__all__ = [
    "RegistryOperator",
    "TaskKilled",
    "XOpsOperator",
    "actor_of",
    "as_airflow_error",
    "now",
    "resolved",
]

R = TypeVar("R", bound="records.Record")


class TaskKilled(BaseException):
    """Somebody ended the task. No ``Exception``: neither the domain nor user code may take it for its own."""


class XOpsOperator(BaseOperator):
    """Base of the operators: connections, errors by cause, and what a task hands to the next one.

    :param lake_conn_id: the Airflow connection of the lake.
    :param emit_when_reused: emit the outlets' asset events also when another run had done the work before. By
        default they stay silent then, so that nothing downstream starts again for the same version. A retry
        of the task that did the work always emits.
    """

    #: arguments that must hold something once their templates are rendered
    required: ClassVar[tuple[str, ...]] = ()
    #: arguments that may be a function or class: Airflow would call one that stands in a template field
    user_code: ClassVar[tuple[str, ...]] = ()
    template_fields: Sequence[str] = ("lake_conn_id",)
    ui_color = "#e8f1ee"

    # Set while performing, for the extra links that Airflow asks for afterwards in the same process.
    evidence_uri: str | None = None
    report_uri: str | None = None
    run_url: str | None = None
    version_url: str | None = None

    # Whether a kill would interrupt the domain (and nobody was killed yet).
    _performing = False

    def __init__(
        self,
        *,
        lake_conn_id: str = LakeHook.default_conn_name,
        emit_when_reused: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lake_conn_id = lake_conn_id
        self.emit_when_reused = emit_when_reused

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the rendered arguments, perform, and turn domain errors into failure or retry."""
        self._performing = True
        try:
            self._refuse_empty()
            return self.perform(context)
        except XOpsError as error:
            raise as_airflow_error(error) from error
        except AirflowSkipException as skipped:
            self.log.warning("Skipping what follows: %s", skipped)  # Airflow's own line does not say why
            raise
        finally:
            self._performing = False

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """As Airflow does, but a function given as user code stays one, for the domain to judge."""
        code = {name: getattr(self, name) for name in self.user_code if callable(getattr(self, name))}
        for name in code:
            setattr(self, name, None)
        super().render_template_fields(context, jinja_env)
        for name, value in code.items():
            setattr(self, name, value)

    def perform(self, context: Context) -> dict[str, Any]:
        """The operator's own work; raises the domain's errors."""
        raise NotImplementedError

    def lake(self) -> Lake:
        """The lake of ``lake_conn_id``."""
        return LakeHook(self.lake_conn_id).get_lake()

    def record(self, lake: Lake, given: Any, record_type: type[R], *, argument: str) -> R:
        """The record an argument stands for: what another task returned, its JSON, or a record id.

        :raises ArgumentError: nothing was given (``argument.empty``) or it is no record.
        """
        if is_empty(given):
            raise ArgumentError(
                f"{argument} of task {self.task_id} is empty",
                code="argument.empty",
                why="its template rendered to nothing, or the task it comes from was skipped",
                todo=f"pass the output of a task that gives {record_type.kind}, or a record id",
            )
        found = resolved(lake, given, record_type.kind, argument=argument)
        if not isinstance(found, record_type):
            raise DataError(f"{argument} is a {type(found).__name__}", code="data.record_kind")
        return found

    def hand_over(
        self,
        context: Context,
        lake: Lake,
        record: records.Record,
        *,
        reused: bool | None = None,
        emit: bool = True,
        **more: Any,
    ) -> dict[str, Any]:
        """What the task returns: the compact record; the same is the extra of every outlet's asset event.

        :param reused: the work had been done before; then only a retry of the task that did it emits.
        :param emit: False: nothing happened that anyone downstream should start for.
        :param more: small plain values added to what is returned, not to the events.
        """
        self.evidence_uri = lake.evidence.uri(record)
        content = records.compact(
            record,
            uri=self.evidence_uri,
            limit=records.XCOM_LIMIT_BYTES - len(json.dumps(more, default=str)) - 64,
        )
        if not emit or (reused and not self.emit_when_reused and not _same_task(record.produced_by, context)):
            self.silence(context)
        for outlet in self.outlets:
            # An alias names no asset: whoever uses one adds its events in a task of their own. Outlets may
            # also be lineage entities, which have no events.
            if isinstance(outlet, Asset | AssetRef):
                context["outlet_events"][outlet].extra = content
        return {**content, **more, **({} if reused is None else {"reused": reused})}

    def silence(self, context: Context) -> None:
        """Emit no asset event: Airflow emits one for every outlet that a succeeded task still has."""
        kept = [outlet for outlet in self.outlets if not isinstance(outlet, Asset | AssetRef | AssetAlias)]
        if len(kept) < len(self.outlets):
            self.log.info("Nothing new: no asset event is emitted.")
        self.outlets = kept

    def leave_when_killed(self) -> None:
        """For the ``on_kill`` of an operator that holds something open: leave ``perform``, which closes it.

        Airflow calls ``on_kill`` in the task's own thread, from the handler of SIGTERM (seconds before
        SIGKILL), and after an execution timeout, when ``perform`` was left already.
        """
        if self._performing:
            self._performing = False
            raise TaskKilled(f"task {self.task_id} was ended from outside; what it held open is being closed")

    def _refuse_empty(self) -> None:
        for name in self.required:
            if is_empty(getattr(self, name)):
                raise ArgumentError(
                    f"{name} of task {self.task_id} is empty",
                    code="argument.empty",
                    why="its template rendered to nothing, or the task it comes from was skipped",
                    todo=f"give {name} a value",
                )


class RegistryOperator(XOpsOperator):
    """Base of the operators that also talk to MLflow.

    :param mlflow_conn_id: the Airflow connection of the MLflow server.
    """

    template_fields: Sequence[str] = ("lake_conn_id", "mlflow_conn_id")

    def __init__(self, *, mlflow_conn_id: str = MlflowHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    def registry(self) -> RegistryClient:
        """A client of the server of ``mlflow_conn_id``."""
        return MlflowHook(self.mlflow_conn_id).get_registry()

    def model_given(self, lake: Lake, given: Any) -> records.ModelVersion:
        """The version meant by an argument ``model``: a model's record, or the one an evaluation is about."""
        from airflow_provider_xops.registry.loading import get_model

        try:
            return self.record(lake, given, records.ModelVersion, argument="model")
        except (DataError, NotFoundError) as error:
            if error.code not in ("data.record_kind", "not_found.record"):
                raise
            try:
                of = self.record(lake, given, records.Evaluation, argument="model").model
            except (DataError, NotFoundError, ArgumentError):
                raise error from None
        return get_model(lake, of.name, of.version, created_at_ms=of.created_at_ms)

    def link_model(
        self,
        registry: RegistryClient,
        name: str,
        version: int | None,
        run_id: str | None = None,
        experiment_id: str | None = None,
    ) -> None:
        """Remember the MLflow pages of a model version for the task's extra links."""
        if version is not None:
            self.version_url = registry.version_url(name, version)
        if run_id and experiment_id:
            self.run_url = registry.run_url(run_id, experiment_id)


def as_airflow_error(error: XOpsError) -> AirflowException:
    """The Airflow exception for a domain error, with the whole message; retried where that can help."""
    return AirflowException(str(error)) if error.retryable else AirflowFailException(str(error))


def actor_of(context: Context) -> records.Actor:
    """On whose behalf the task acts: the key is the same for every try, the fence rises with each of them."""
    ti: Any = context["ti"]
    map_index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
    parts = [ti.dag_id, ti.run_id, ti.task_id] + ([str(map_index)] if map_index is not None else [])
    name = "/".join(parts)
    started = ti.start_date or now()
    producer = records.Producer(
        kind=records.ActorKind.TASK,
        id=name,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=map_index,
        try_number=ti.try_number,
    )
    return records.Actor(producer=producer, idempotency_key=name, fence=int(started.timestamp() * 1_000_000))


def resolved(lake: Lake, given: Any, kind: str, *, argument: str) -> records.Record:
    """The record that an argument stands for.

    :raises ArgumentError: it is nothing that could stand for one record (``argument.record``).
    """
    if not isinstance(given, str | Mapping | records.Record):
        several = isinstance(given, Sequence)
        raise ArgumentError(
            f"{argument} is {'a list' if several else f'a {type(given).__name__}'}, not one record",
            code="argument.record",
            why="the output of a mapped task is a list of records" if several else "",
            todo=f"map this task over it: .expand({argument}=...)" if several else "pass a task's output",
        )
    return lake.evidence.resolve(given, kind)


def now() -> datetime:
    """The moment handed to the domain as ``as_of``."""
    return datetime.now(UTC)


def _same_task(producer: records.Producer, context: Context) -> bool:
    own = actor_of(context).producer
    return producer.kind == own.kind and producer.id == own.id
