"""What MLflow says an alias stands for, asked by plain HTTP: no import of MLflow, which costs seconds.

For the alias trigger and the alias sensor: one request, its answer, and the typed errors of whatever else
comes back. Credentials are in the headers of the request and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, RegistryError, UnavailableError, XOpsError

if TYPE_CHECKING:
    import httpx

    from airflow_provider_xops.settings import MlflowSettings

__all__ = [
    "AliasTarget",
    "Wanted",
    "alias_of",
    "client_arguments",
    "not_reached",
    "request_arguments",
    "unreadable",
    "unusable",
]

PATH = "/api/2.0/mlflow/registered-models/alias"
_BUSY = (408, 425, 429)


@dataclass(frozen=True)
class AliasTarget:
    """The version that an alias stands for. A version that was made again under its number has another
    ``created_at_ms``."""

    version: int
    created_at_ms: int
    run_id: str | None = None

    @classmethod
    def from_json(cls, data: Any) -> AliasTarget | None:
        """What :meth:`to_json` gave; None for anything else."""
        if not isinstance(data, Mapping) or "version" not in data:
            return None
        return cls(int(data["version"]), int(data.get("created_at_ms") or 0), data.get("run_id"))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"version": self.version, "created_at_ms": self.created_at_ms, "run_id": self.run_id}

    def same(self, other: AliasTarget | None) -> bool:
        """Whether this is the same version; a moment of creation that is not known (0) fits any."""
        if other is None or self.version != other.version:
            return False
        return not (self.created_at_ms and other.created_at_ms) or self.created_at_ms == other.created_at_ms


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is waited for: any version, one version, or any but one."""

    version: int | None = None
    changed_from: int | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.changed_from is not None:
            raise ArgumentError(
                "version and changed_from are both given", code="argument.version",
                why="either one version is waited for, or any other than one", todo="give one of them",
            )  # fmt: skip

    def is_met(self, target: AliasTarget | None) -> bool:
        """Whether the alias stands for what is waited for. An alias that stands for nothing never is.

        >>> Wanted(changed_from=2).is_met(AliasTarget(3, 0)), Wanted(version=2).is_met(None)
        (True, False)
        """
        if target is None:
            return False
        if self.version is not None:
            return target.version == self.version
        return target.version != self.changed_from


def client_arguments(settings: MlflowSettings) -> dict[str, Any]:
    """Arguments of an ``httpx`` client for one server: bounded waiting, and who asks."""
    headers = {"Accept": "application/json"}
    if settings.workspace:
        headers["X-MLFLOW-WORKSPACE"] = settings.workspace
    arguments: dict[str, Any] = {"timeout": float(settings.timeout_s), "headers": headers}
    if settings.username:
        arguments["auth"] = (settings.username, settings.password or "")
    elif settings.token:
        headers["Authorization"] = f"Bearer {settings.token}"
    return arguments


def request_arguments(settings: MlflowSettings, model_name: str, alias: str) -> dict[str, Any]:
    """Arguments of the client's ``get``."""
    return {
        "url": f"{settings.tracking_uri.rstrip('/')}{PATH}",
        "params": {"name": model_name, "alias": alias},
    }


def alias_of(response: httpx.Response, *, model_name: str, alias: str) -> AliasTarget | None:
    """What the answer says; None: there is no such alias, or no such model.

    :raises UnavailableError: the server is not well, or something else than MLflow answered.
    :raises RegistryError: ``registry.unauthenticated``, ``registry.forbidden``, ``registry.refused``.
    """
    doing = f"reading alias {alias} of model {model_name}"
    status = response.status_code
    body = _json(response)
    if status == 200:
        try:
            found = body["model_version"]
            return AliasTarget(
                int(found["version"]), int(found.get("creation_timestamp") or 0), found.get("run_id") or None
            )
        except (KeyError, TypeError, ValueError):
            why = "the answer is not MLflow's: a login page or a proxy may stand before it"
            raise _silent(doing, why) from None
    if status == 401:
        raise RegistryError(
            f"MLflow does not know who asks, {doing}", code="registry.unauthenticated",
            todo="check user name and password, or the token, in the connection",
        )  # fmt: skip
    if status == 403:
        raise RegistryError(
            f"MLflow refused {doing}", code="registry.forbidden",
            why="the user may not read the model (a server with permissions says so of missing models too),"
            " or the server does not accept the host name it was asked by",
            todo="grant the permission, or name the host in the server's --allowed-hosts",
        )  # fmt: skip
    code, message = str(body.get("error_code") or ""), str(body.get("message") or "")
    if code == "RESOURCE_DOES_NOT_EXIST" or (
        code == "INVALID_PARAMETER_VALUE" and "not found" in message.lower()
    ):
        return None
    if status >= 500 or status in _BUSY:
        raise _silent(doing, f"it answered with HTTP {status}")
    raise RegistryError(
        f"MLflow refused {doing}", code="registry.refused", why=f"HTTP {status} {code}".strip(),
        todo="check the tracking URI, the model's name and the alias",
    )  # fmt: skip


def not_reached(error: Exception, *, model_name: str, alias: str) -> XOpsError:
    """The error of a request that got no answer."""
    return _silent(f"reading alias {alias} of model {model_name}", type(error).__name__)


def unreadable(error: Exception, conn_id: str) -> XOpsError:
    """The error of a connection that Airflow did not hand out. Its text is left out: it may hold secrets."""
    return UnavailableError(
        f"the Airflow connection {conn_id!r} cannot be read", code="unavailable.connection",
        why=type(error).__name__, todo="check Airflow's API server, and where connections are kept",
    )  # fmt: skip


def unusable(conn_id: str) -> XOpsError:
    """The error of an address that nothing can be sent to. The address is left out, as it may hold
    secrets."""
    return ArgumentError(
        f"the address in the Airflow connection {conn_id!r} is no URL", code="argument.mlflow_uri",
        todo="correct it: http or https, a host, and the number of a port if there is one",
    )  # fmt: skip


def _silent(doing: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"MLflow did not answer, {doing}", code="unavailable.registry", why=why,
        todo="check that the server runs; nothing else is needed",
    )  # fmt: skip


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
