"""The MLflow server behind an Airflow connection of type ``xops_mlflow``.

For operators and for tasks of one's own (``MlflowHook().get_registry()``). The hook only resolves settings;
what is done with MLflow is in :mod:`airflow_provider_xops.registry`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_xops.errors import ArgumentError, XOpsError
from airflow_provider_xops.hooks._forms import ConnectionForm
from airflow_provider_xops.hooks._settings import configured, connection_or_none, extra_of, mask, number
from airflow_provider_xops.version_compat import BaseHook

if TYPE_CHECKING:
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.settings import MlflowSettings
    from airflow_provider_xops.version_compat import Connection

__all__ = ["MlflowHook"]


class MlflowHook(ConnectionForm, BaseHook):
    """Opens the MLflow server that a connection names.

    The connection's host is the whole tracking URI, or host, port and scheme are in their own fields; login
    and password, or a token, are sent with each request. Waiting is bounded: MLflow's own defaults wait four
    minutes on a refused port. Where the default connection does not exist, ``[xops] mlflow_tracking_uri`` and
    ``XOPS_MLFLOW_TRACKING_URI`` are looked at.

    :param mlflow_conn_id: the connection's id.
    :param tracking_uri: the server's address, before what the connection says.
    :param timeout_s: seconds one request may take.
    :raises ArgumentError: no address, a malformed field, or a connection that does not exist.

    Example::

        registry = MlflowHook("xops_mlflow_default").get_registry()
        registry.aliases("late_arrival")

    What it does not do: it never changes where MLflow's own fluent functions (``mlflow.log_metric``) write.
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "xops_mlflow_default"
    conn_type = "xops_mlflow"
    hook_name = "XOps MLflow"

    def __init__(
        self,
        mlflow_conn_id: str = default_conn_name,
        *,
        tracking_uri: str | None = None,
        timeout_s: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.tracking_uri = tracking_uri
        self.timeout_s = timeout_s

    def get_settings(self) -> MlflowSettings:
        """The settings the domain takes, resolved now; secrets in them are masked in the log from here on."""
        from airflow_provider_xops.settings import mlflow_settings_from_env

        connection = connection_or_none(
            self.mlflow_conn_id, default=self.default_conn_name, conn_type=self.conn_type
        )
        extra = extra_of(connection)
        found = {
            "username": connection.login if connection else None,
            "password": connection.password if connection else None,
            "token": extra.get("token"),
            "ui_url": extra.get("ui_url") or configured("mlflow_ui_url"),
            "workspace": extra.get("workspace"),
            "timeout_s": _whole(
                self.timeout_s or extra.get("timeout") or configured("mlflow_timeout_s"), "timeout"
            ),
            "max_retries": _whole(
                _first(extra.get("max_retries"), configured("mlflow_max_retries")), "max_retries"
            ),
            "backoff_factor": number(
                _first(extra.get("backoff_factor"), configured("mlflow_backoff_factor")), "backoff_factor"
            ),
        }
        settings = mlflow_settings_from_env(
            self.tracking_uri or _uri_of(connection) or configured("mlflow_tracking_uri")
        )
        if found["token"]:
            # MLflow prefers a user name over a token: whoever filled in the token means the token.
            found |= {"username": None, "password": None}
            settings = dataclasses.replace(settings, username=None, password=None)
        settings = dataclasses.replace(settings, **_given(found))
        if urlsplit(settings.tracking_uri).scheme not in ("http", "https"):
            raise ArgumentError(
                f"the tracking URI {settings.tracking_uri!r} is not http(s)",
                code="argument.mlflow_uri",
                why="tasks on several machines need one server; a file or a database is none",
                todo="give the address of an MLflow server",
            )
        mask(settings.password, settings.token)
        return settings

    def get_registry(self) -> RegistryClient:
        """A client with bounded waiting and typed errors. Nothing is contacted yet."""
        from airflow_provider_xops.registry.client import RegistryClient

        return RegistryClient(self.get_settings())

    def get_conn(self) -> RegistryClient:
        """The same as :meth:`get_registry`, by Airflow's customary name."""
        return self.get_registry()

    def test_connection(self) -> tuple[bool, str]:
        """Ask the registry a real question as this user (``/health`` answers without a database)."""
        try:
            registry = self.get_registry()
            registry.preflight()
        except XOpsError as error:
            return False, str(error)
        except Exception as error:  # the form must show an answer; foreign texts may carry credentials
            return (
                False,
                f"{type(error).__name__} while asking MLflow; the log of the server has the details",
            )
        return True, f"The model registry at {registry.settings.tracking_uri} answers."


def _uri_of(connection: Connection | None) -> str | None:
    """The tracking URI from host, port and schema, whichever of them hold what."""
    from airflow_provider_xops.settings import without_userinfo

    if connection is None or not connection.host:
        return None
    host, scheme, path = connection.host, connection.schema or "", ""
    if "://" not in host:
        if scheme not in ("", "http", "https"):
            scheme, path = "http", f"/{scheme}"
        host = f"{scheme or 'http'}://{host}"
    elif scheme not in ("", "http", "https"):
        path = f"/{scheme}"
    parts = urlsplit(host)
    netloc = parts.netloc
    bare = urlsplit(without_userinfo(host))
    if connection.port and bare.port is None:
        netloc = f"{netloc}:{connection.port}"
    return urlunsplit(parts._replace(netloc=netloc, path=(parts.path.rstrip("/") + path)))


def _given(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value not in (None, "")}


def _first(*values: Any) -> Any:
    """The first that is given; zero is."""
    return next((value for value in values if value not in (None, "")), None)


def _whole(value: Any, name: str) -> int | None:
    found = number(value, name)
    return None if found is None else int(found)
