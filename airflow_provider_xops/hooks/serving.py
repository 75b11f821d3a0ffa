"""The place where models are served, behind an Airflow connection of type ``xops_serving``.

For the deployment operators and for tasks of one's own. The hook only resolves settings; what is done with a
target is in :mod:`airflow_provider_xops.serving.targets`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, XOpsError
from airflow_provider_xops.hooks._forms import ConnectionForm
from airflow_provider_xops.hooks._settings import connection_or_none, extra_of, mask, number
from airflow_provider_xops.version_compat import AirflowNotFoundException, BaseHook

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.records import Actor
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.serving.targets.base import ServingBackend
    from airflow_provider_xops.serving.targets.settings import ServingSettings
    from airflow_provider_xops.version_compat import Connection

__all__ = ["ServingHook"]


class ServingHook(ConnectionForm, BaseHook):
    """Finds the target that a connection names.

    The field *kind* says what it is. ``xops``: replicas of ``xops serve``, whose addresses are in the host
    field, separated by commas, with a key that may manage them as the password. ``v2``: model servers with a
    repository API, their addresses in the host field and the folder they read in *repository*.
    ``sagemaker``: an endpoint, with an AWS connection in *aws_conn_id* and what it runs on in *options*.
    Where the default connection does not exist, the ``XOPS_SERVING_*`` variables are looked at.

    :param serving_conn_id: the connection's id.
    :raises ArgumentError: a connection that does not exist, or lacks what its kind needs.

    Example::

        target = ServingHook("models_eu").get_target(lake, registry, actor=actor, clock=clock)
        target.serving("late", "champion")

    What it does not do: it starts no server.
    """

    conn_name_attr = "serving_conn_id"
    default_conn_name = "xops_serving_default"
    conn_type = "xops_serving"
    hook_name = "XOps serving"

    def __init__(self, serving_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.serving_conn_id = serving_conn_id

    def get_settings(self) -> ServingSettings:
        """The settings the domain takes, resolved now; secrets in them are masked in the log from here on."""
        from airflow_provider_xops.serving.targets.settings import (
            ServingSettings,
            options_of,
            serving_settings_from_env,
            split_hosts,
        )

        connection = connection_or_none(
            self.serving_conn_id, default=self.default_conn_name, conn_type=self.conn_type
        )
        if connection is None:
            settings = serving_settings_from_env()
            mask(settings.api_key)
            return settings
        extra = extra_of(connection)
        mask(connection.password)
        timeout_s = number(extra.get("timeout"), "timeout")
        aws_conn_id, region = extra.get("aws_conn_id"), extra.get("region")
        options = options_of(extra.get("options"), where="the connection's options")
        aws = functools.partial(_aws_client, str(aws_conn_id), region) if aws_conn_id else None
        return ServingSettings(
            kind=str(extra.get("kind") or "xops"),
            hosts=split_hosts(_hosts_of(connection)),
            api_key=connection.password or "",
            timeout_s=10.0 if timeout_s is None else timeout_s,
            repository=str(extra.get("repository") or ""),
            endpoint_name=str(extra.get("endpoint_name") or ""),
            aws=aws,
            options={**options, **({"region": region} if region and aws is None else {})},
        )

    def get_target(
        self, lake: Lake, registry: RegistryClient, *, actor: Actor, clock: Callable[[], datetime]
    ) -> ServingBackend:
        """The target, for one piece of work. Nothing is contacted yet."""
        from airflow_provider_xops.serving.targets.settings import open_target

        return open_target(self.get_settings(), lake=lake, client=registry, actor=actor, clock=clock)

    def get_conn(self) -> ServingSettings:
        """The same as :meth:`get_settings`, by Airflow's customary name."""
        return self.get_settings()

    def test_connection(self) -> tuple[bool, str]:
        """Ask each server, or SageMaker, whether it answers with this key."""
        try:
            from airflow_provider_xops.serving.targets.settings import reach

            return True, reach(self.get_settings())
        except XOpsError as error:
            return False, str(error)
        except Exception as error:  # the form must show an answer; foreign texts may carry credentials
            return (
                False,
                f"{type(error).__name__} while asking the target; the log of the server has the details",
            )


def _hosts_of(connection: Connection) -> str:
    """The host field; with the scheme and port of their own fields where it is one bare name."""
    host = (connection.host or "").strip()
    if not host or "," in host or " " in host or "://" in host:
        return host
    if connection.port and ":" not in host:
        host = f"{host}:{connection.port}"
    return f"{connection.schema}://{host}" if connection.schema in ("http", "https") else host


def _aws_client(aws_conn_id: str, region: str | None, service: str) -> Any:
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError:
        raise ArgumentError(
            f"the serving connection names the AWS connection {aws_conn_id!r}",
            code="argument.amazon_missing",
            why="the Amazon provider is not installed",
            todo="pip install 'airflow-provider-xops[amazon]'",
        ) from None
    try:
        # The provider itself only warns and goes on without credentials.
        BaseHook.get_connection(aws_conn_id)
    except AirflowNotFoundException:
        raise ArgumentError(
            f"there is no Airflow connection {aws_conn_id!r}",
            code="argument.connection",
            todo="add it, or correct aws_conn_id in the serving connection",
        ) from None
    hook: Any = AwsBaseHook(aws_conn_id=aws_conn_id, client_type=service, region_name=region)
    return hook.get_conn()
