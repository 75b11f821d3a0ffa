"""What serves an alias at this moment, for people: each server's own word, without a lake and without MLflow.

For the page in Airflow that the deployment tasks link to. Who is on call has neither the servers' key nor,
often, a way to their addresses; Airflow's web server has both through the connection.

What it does not do: it changes nothing, and it does not say what should serve (`xops history` does).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.serving.targets.settings import ServingSettings

__all__ = ["what_serves"]

log = logging.getLogger(__name__)

# People wait, and a server that is away is an answer too.
PATIENCE_S = 5.0
AT_ONCE = 16


def what_serves(settings: ServingSettings, *, model: str, alias: str = "champion") -> dict[str, Any]:
    """Ask every server of a target which versions answer callers of an alias, and in which shares.

    :returns: plain JSON: ``model``, ``alias``, ``kind``, and for each of the ``servers`` its address with
        ``shares`` (version to share of the requests) and what its kind tells besides, or with the ``error``
        and its ``code``. A server that does not answer is told of, not raised.

    >>> what_serves(settings, model="late")["servers"][0]  # doctest: +SKIP
    {'server': 'http://models-1:8080', 'shares': {'3': 0.9, '4': 0.1}, 'shadows': {}, 'loaded': [3, 4],
     'failed': {}}
    """
    quick = replace(settings, timeout_s=min(settings.timeout_s, PATIENCE_S))
    ask = {"xops": _replica, "v2": _model_server}.get(settings.kind)
    places: list[tuple[str, Callable[[], dict[str, Any]]]] = (
        [(settings.endpoint_name, partial(_endpoint, quick))]
        if ask is None
        else [(host, partial(ask, quick, host, model, alias)) for host in settings.hosts]
    )
    with ThreadPoolExecutor(min(AT_ONCE, len(places)), thread_name_prefix="xops-look") as together:
        servers = list(together.map(_told, places))
    return {"model": model, "alias": alias, "kind": settings.kind, "servers": servers}


def _told(place: tuple[str, Callable[[], dict[str, Any]]]) -> dict[str, Any]:
    name, ask = place
    try:
        return {"server": name, **ask()}
    except XOpsError as error:
        return {"server": name, "error": error.what, "code": error.code}
    except Exception as error:  # the others are still told; foreign texts may carry credentials
        log.warning("Cannot ask %s what it serves: %s", name, type(error).__name__)
        return {"server": name, "error": type(error).__name__, "code": "unexpected"}


def _replica(settings: ServingSettings, host: str, model: str, alias: str) -> dict[str, Any]:
    from airflow_provider_xops.serving.targets._own_replica import Replica

    status = Replica(host, api_key=settings.api_key, timeout_s=settings.timeout_s).status(model, alias)
    return {
        "shares": _by_version(status.shares),
        "shadows": _by_version(status.shadows),
        "loaded": sorted(version for version, _ in status.loaded),
        "failed": _by_version(status.failed),
    }


def _model_server(settings: ServingSettings, host: str, model: str, alias: str) -> dict[str, Any]:
    from airflow_provider_xops.serving.targets._v2_client import V2Server, served_name

    headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
    name = served_name(str(settings.options.get("name") or model), alias)
    found = V2Server(host, headers=headers, timeout_s=settings.timeout_s).loaded(name)
    if found is None or found.version is None:
        return {"shares": {}}
    return {"shares": {str(found.version): 1.0}, "files": found.platform}


def _endpoint(settings: ServingSettings) -> dict[str, Any]:
    from airflow_provider_xops.serving.targets._sagemaker_aws import Clients, SageMaker, plain_clients
    from airflow_provider_xops.serving.targets._sagemaker_parts import version_of

    options = settings.options
    clients = (
        plain_clients(options.get("region"), endpoint_url=options.get("endpoint_url"))
        if settings.aws is None
        else Clients.made_by(settings.aws)
    )
    now = SageMaker(clients, settings.endpoint_name).now()
    if now is None:
        return {"status": "there is none", "shares": {}}
    named = {version_of(name) or name: share for name, share in now.shares().items()}
    return {"status": now.status, "shares": _by_version(named), "reason": now.reason}


def _by_version(found: Any) -> dict[str, Any]:
    return {str(version): value for version, value in found.items()}
