"""Where models are served, as one small dataclass: all that the rollout sees of a connection.

For the hook, which builds it from an Airflow connection, and for ``xops deploy``, which builds it from the
environment. Secrets never appear in a ``repr``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor
from airflow_provider_xops.serving.targets._http import Http, base_url

if TYPE_CHECKING:
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.serving.targets.base import ServingBackend

__all__ = [
    "KINDS",
    "ServingSettings",
    "open_target",
    "options_of",
    "reach",
    "serving_settings_from_env",
    "split_hosts",
]

KINDS = ("xops", "v2", "sagemaker")


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """How to reach one target.

    :param kind: ``xops`` (replicas of ``xops serve``), ``v2`` (a model server with a repository) or
        ``sagemaker``.
    :param hosts: the address of each replica, without credentials; for ``xops`` and ``v2``.
    :param api_key: sent to each replica; for ``xops`` one that may manage the server.
    :param timeout_s: seconds one request may take.
    :param repository: the model repository's folder as this process sees it; for ``v2``.
    :param endpoint_name: the endpoint; for ``sagemaker``.
    :param aws: makes a boto3 client for a service; for ``sagemaker``. None: boto3's own chain.
    :param options: what only one kind of target has, by name.
    :raises ArgumentError: ``argument.serving``: an unknown kind, or one without what it needs;
        ``argument.server_url``.

    >>> ServingSettings(kind="xops", hosts=["models-1:8080"], api_key="hidden")
    ServingSettings(kind='xops', hosts=('http://models-1:8080',), timeout_s=10.0)
    """

    kind: str = "xops"
    hosts: Sequence[str] = ()
    api_key: str = field(default="", repr=False)
    timeout_s: float = 10.0
    repository: str = field(default="", repr=False)
    endpoint_name: str = field(default="", repr=False)
    aws: Callable[[str], Any] | None = field(default=None, repr=False, compare=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise _unusable(
                f"there is no kind of target {self.kind[:40]!r}", f"use one of {', '.join(KINDS)}"
            )
        object.__setattr__(self, "hosts", tuple(dict.fromkeys(base_url(host) for host in self.hosts)))
        if self.kind in ("xops", "v2") and not self.hosts:
            raise _unusable("no server is named", "give the address of each replica as the host")
        if self.kind == "v2" and not self.repository:
            raise _unusable(
                "no model repository is named", "give the folder that the servers read models from"
            )
        if self.kind == "sagemaker" and not self.endpoint_name:
            raise _unusable("no endpoint is named", "give the name of the SageMaker endpoint")
        if not 0 < self.timeout_s < math.inf:
            raise _unusable("the timeout is not a positive number", "give seconds")


def open_target(
    settings: ServingSettings,
    *,
    lake: Lake,
    client: RegistryClient,
    actor: Actor,
    clock: Callable[[], datetime],
) -> ServingBackend:
    """The target that settings describe. Nothing is contacted yet."""
    if settings.kind == "v2":
        return _v2(settings, lake, client)
    if settings.kind == "sagemaker":
        return _sagemaker(settings, lake, client)
    from airflow_provider_xops.serving.targets.own import OwnServers

    return OwnServers(
        lake, settings.hosts, api_key=settings.api_key, timeout_s=settings.timeout_s, actor=actor, clock=clock
    )


def serving_settings_from_env(
    hosts: str | Sequence[str] | None = None,
    *,
    kind: str | None = None,
    environ: Mapping[str, str] | None = None,
    aws: Callable[[str], Any] | None = None,
) -> ServingSettings:
    """Settings from arguments and ``XOPS_SERVING_*`` variables: HOSTS (separated by commas), KIND, API_KEY,
    TIMEOUT_S, REPOSITORY, ENDPOINT, OPTIONS (JSON).

    :raises ArgumentError: ``argument.serving``, ``argument.environment``.

    >>> serving_settings_from_env("a:8080, b:8080", environ={"XOPS_SERVING_TIMEOUT_S": "3"}).hosts
    ('http://a:8080', 'http://b:8080')
    """
    env = os.environ if environ is None else environ

    def text(name: str) -> str:
        return env.get(f"XOPS_SERVING_{name}", "").strip()

    return ServingSettings(
        kind=kind or text("KIND") or "xops",
        hosts=split_hosts(hosts or text("HOSTS")),
        api_key=text("API_KEY"),
        timeout_s=_number(text("TIMEOUT_S"), 10.0),
        repository=text("REPOSITORY"),
        endpoint_name=text("ENDPOINT"),
        aws=aws,
        options=options_of(text("OPTIONS"), where="XOPS_SERVING_OPTIONS"),
    )


def reach(settings: ServingSettings) -> str:
    """Ask the target a real question; gives a sentence on what answered.

    :raises UnavailableError: it did not answer. :raises ArgumentError: it does not take the key.
    """
    if settings.kind == "sagemaker":
        clients = settings.aws or (lambda service: _boto_client(service, settings.options))
        clients("sagemaker").list_endpoints(MaxResults=1)
        return f"SageMaker answers; endpoint {settings.endpoint_name}."
    headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
    for host in settings.hosts:
        http = Http(host, headers=headers, timeout_s=settings.timeout_s)
        answer = http.get("/xops/status" if settings.kind == "xops" else "/v2/health/live")
        if answer.status in (401, 403):
            raise ArgumentError(
                f"the server at {host} does not take this key",
                code="argument.serving_key",
                why=f"it answered {answer.status}",
                todo="give a key that may manage the server",
            )
        if answer.status != 200:
            raise UnavailableError(
                f"the server at {host} answered {answer.status}",
                code="unavailable.server",
                todo="check the address, and what kind of target it is",
            )
    return f"All {len(settings.hosts)} servers answer."


def split_hosts(given: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses in a text, separated by commas or blanks; or in a list.

    >>> split_hosts("a:1,b:2 c:3")
    ('a:1', 'b:2', 'c:3')
    """
    parts = given.replace(",", " ").split() if isinstance(given, str) else [str(each) for each in given]
    return tuple(part.strip() for part in parts if part.strip())


def options_of(given: Any, *, where: str) -> dict[str, Any]:
    """A JSON object, or the text of one; nothing is an empty one.

    :raises ArgumentError: ``argument.serving``: it is none. The text is not repeated.
    """
    try:
        found = json.loads(given or "{}") if isinstance(given, str) else given or {}
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        raise _unusable(f"{where} is not a JSON object", 'write for example {"runtime": "..."}')
    return {str(name): value for name, value in found.items()}


def _v2(settings: ServingSettings, lake: Lake, client: RegistryClient) -> ServingBackend:
    from airflow_provider_xops.serving.targets.v2 import V2Backend

    headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else None
    return V2Backend(
        lake, client, urls=settings.hosts, repository=settings.repository, headers=headers,
        timeout_s=settings.timeout_s,
        **_known(settings.options, {"name", "load_timeout_s", "runtime", "metrics_urls"}),
    )  # fmt: skip


def _sagemaker(settings: ServingSettings, lake: Lake, client: RegistryClient) -> ServingBackend:
    from airflow_provider_xops.serving.targets._sagemaker_aws import Clients, plain_clients
    from airflow_provider_xops.serving.targets._sagemaker_parts import SageMakerSettings
    from airflow_provider_xops.serving.targets.sagemaker import SageMakerBackend

    names = {each.name for each in fields(SageMakerSettings)} - {"endpoint"}
    given = _known(settings.options, names | {"region", "endpoint_url"})
    region, endpoint_url = given.pop("region", None), given.pop("endpoint_url", None)
    missing = sorted({"image_uri", "role_arn", "model_data"} - set(given))
    if missing:
        raise _unusable(f"the endpoint's {', '.join(missing)} are missing", "give them in the options")
    clients = (
        plain_clients(region, endpoint_url=endpoint_url)
        if settings.aws is None
        else Clients.made_by(settings.aws)
    )
    described = SageMakerSettings(endpoint=settings.endpoint_name, **given)
    return SageMakerBackend(lake, client, settings=described, clients=clients)


def _boto_client(service: str, options: Mapping[str, Any]) -> Any:
    import boto3

    region, endpoint_url = options.get("region"), options.get("endpoint_url")
    return boto3.Session().client(service, region_name=region, endpoint_url=endpoint_url)


def _known(options: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    unknown = sorted(set(options) - names)
    if unknown:
        known = ", ".join(sorted(names))
        raise _unusable(f"this kind of target has no option {', '.join(unknown)}", f"use {known}")
    return dict(options)


def _number(text: str, default: float) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        raise ArgumentError(
            "the environment variable XOPS_SERVING_TIMEOUT_S is not a number",
            code="argument.environment",
            todo="set it to seconds",
        ) from None


def _unusable(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.serving", todo=todo)
