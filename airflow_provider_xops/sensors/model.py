"""Waiting for a model: until an alias stands for a version, or for another one than before.

For DAGs that follow a promotion made elsewhere: in another DAG, at a command line, in another Airflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, UnavailableError, XOpsError
from airflow_provider_xops.hooks.mlflow import MlflowHook
from airflow_provider_xops.operators._arguments import is_empty, whole_number
from airflow_provider_xops.operators._base import as_airflow_error
from airflow_provider_xops.version_compat import BaseSensorOperator, PokeReturnValue, conf

if TYPE_CHECKING:
    from airflow_provider_xops.triggers._alias import AliasTarget, Wanted
    from airflow_provider_xops.version_compat import Context

__all__ = ["ModelAliasSensor"]


class ModelAliasSensor(BaseSensorOperator):
    """Waits until a registered model's alias stands for something, for one version, or for another one.

    An alias or a model that does not exist yet is waited for. A server that refuses (no such user, no
    permission) fails the task at once; one that is silent is asked again.

    :param model_name: the registered model.
    :param alias: the alias.
    :param version: wait for this version; empty: any.
    :param changed_from: wait for any version but this one.
    :param patience: how many looks in a row may find the server silent before the task fails (and is
        retried). In the mode ``reschedule`` nobody counts: ``timeout`` ends it.
    :param mlflow_conn_id: the Airflow connection of the MLflow server.
    :param deferrable: wait in the triggerer, without a worker slot; None: as ``[operators]
        default_deferrable`` says.
    :raises ArgumentError: ``version`` and ``changed_from`` are both given, or something is empty.
    :raises RegistryError: ``registry.unauthenticated``, ``registry.forbidden``.

    Further arguments are those of every sensor: ``poke_interval``, ``timeout``, ``mode``, ``soft_fail``.

    Returns ``model``, ``alias``, ``version``, ``created_at_ms`` and ``run_id``.

    Example::

        ModelAliasSensor(
            task_id="wait", model_name="late", changed_from="{{ params.version }}", deferrable=True
        )

    What it does not do: look into the ledger. What an alias says and who decided it are two things;
    ``xops reconcile`` finds where they differ.
    """

    template_fields: Sequence[str] = ("mlflow_conn_id", "model_name", "alias", "version", "changed_from")
    ui_color = "#e8f1ee"

    def __init__(
        self,
        *,
        model_name: str,
        alias: str = "champion",
        version: int | str | None = None,
        changed_from: int | str | None = None,
        patience: int = 5,
        mlflow_conn_id: str = MlflowHook.default_conn_name,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.alias = alias
        self.version = version
        self.changed_from = changed_from
        self.patience = patience
        self.mlflow_conn_id = mlflow_conn_id
        self.deferrable = deferrable
        self._failures = 0

    def execute(self, context: Context) -> Any:
        """Look once, then wait: in the triggerer where it is deferrable, else as sensors do."""
        try:
            wanted = self._wanted()
            deferrable = self.deferrable
            if deferrable is None:
                deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
            if not deferrable:
                return super().execute(context)
            found = self._look()
            if found is not None and wanted.is_met(found):
                return self._end(found)
        except XOpsError as error:
            raise as_airflow_error(error) from error
        from airflow_provider_xops.triggers.model import ModelAliasTrigger

        self.defer(
            trigger=ModelAliasTrigger(
                model_name=self.model_name,
                alias=self.alias,
                mlflow_conn_id=self.mlflow_conn_id,
                poke_interval=self.poke_interval,
                once=True,
                version=wanted.version,
                changed_from=wanted.changed_from,
                patience=self.patience,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """One look, in a worker."""
        try:
            wanted, found = self._wanted(), self._look()
            if found is None or not wanted.is_met(found):
                return False
            return PokeReturnValue(is_done=True, xcom_value=self._end(found))
        except XOpsError as error:
            raise as_airflow_error(error) from error

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Continue when the trigger has something to tell."""
        from airflow_provider_xops.triggers._alias import AliasTarget

        if event["status"] == "error":
            error = event["error"]
            kind = UnavailableError if error["retryable"] else XOpsError
            raised = kind(
                error["what"], **{name: error[name] for name in ("code", "why", "todo", "retryable")}
            )
            raise as_airflow_error(raised) from raised
        found = AliasTarget.from_json(event)
        assert found is not None
        return self._end(found)

    def _wanted(self) -> Wanted:
        from airflow_provider_xops.triggers._alias import Wanted

        for name in ("model_name", "alias"):
            if is_empty(getattr(self, name)):
                raise ArgumentError(
                    f"{name} of task {self.task_id} is empty", code="argument.empty",
                    why="its template rendered to nothing", todo=f"give {name} a value",
                )  # fmt: skip
        return Wanted(
            version=whole_number(self.version, argument="version"),
            changed_from=whole_number(self.changed_from, argument="changed_from"),
        )

    def _look(self) -> AliasTarget | None:
        """What the alias stands for; None also where the server was silent and there is patience left."""
        import httpx

        from airflow_provider_xops.triggers._alias import (
            alias_of,
            client_arguments,
            not_reached,
            request_arguments,
            unusable,
        )

        settings = MlflowHook(self.mlflow_conn_id).get_settings()
        names = {"model_name": self.model_name, "alias": self.alias}
        try:
            try:
                with httpx.Client(**client_arguments(settings)) as client:
                    response = client.get(**request_arguments(settings, self.model_name, self.alias))
            except httpx.HTTPError as error:
                raise not_reached(error, **names) from None
            except (httpx.InvalidURL, ValueError):
                raise unusable(self.mlflow_conn_id) from None
            found = alias_of(response, **names)
        except UnavailableError as error:
            self._failures += 1
            if self._failures > self.patience:
                raise
            self.log.warning("Look %d in a row failed, trying again: %s", self._failures, error)
            return None
        self._failures = 0
        self.log.info(
            "%s", f"{self.alias} of {self.model_name}: {f'v{found.version}' if found else 'nothing'}"
        )
        return found

    def _end(self, found: AliasTarget) -> dict[str, Any]:
        return {"model": self.model_name, "alias": self.alias, **found.to_json()}
