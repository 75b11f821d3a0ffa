"""Model servers that speak the Open Inference Protocol (V2) and its repository API, MLServer above all.

For deployments to servers that are not ours. The servers read a folder, the model repository; whoever deploys
writes it, and tells each server to look. A version is loaded beside the serving one under a name of its own
(``late:v7``), asked its golden rows there, and then put under the name that callers use (``late``), where the
server swaps it in place without failing a request.

Why not version numbers side by side under one name: a call without a number goes to the highest one, from the
moment its loading *begins*. The candidate would answer callers before anybody has asked it anything, and
MLServer refuses them while it loads.
"""

from __future__ import annotations

import collections
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_xops.errors import (
    ArgumentError,
    ConflictError,
    ModelError,
    UnavailableError,
    XOpsError,
)
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Deployment, ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import recorded_version
from airflow_provider_xops.serving.targets._v2_client import V2Server, served_name
from airflow_provider_xops.serving.targets._v2_figures import Mark
from airflow_provider_xops.serving.targets._v2_protocol import as_infer_request, predictions_of
from airflow_provider_xops.serving.targets._v2_repository import (
    MLFLOW_RUNTIME,
    SERVING,
    ModelRepository,
    beside,
    is_of,
    settings_for,
)
from airflow_provider_xops.serving.targets.base import (
    Answer,
    Observation,
    Readiness,
    ServingBackend,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["V2Backend"]

log = logging.getLogger(__name__)


class V2Backend(ServingBackend):
    """Servers over one model repository.

    Callers ask ``/v2/models/<name>/infer``, where the name is the model's own, and ``<model>:<alias>`` for
    any alias but ``champion``. Requests cannot be shared among versions: the only step is 1.0.

    :param urls: every replica's own address. Behind one address of many replicas, only some would be told.
    :param repository: the servers' model repository, an absolute path that can be written here.
    :param name: what callers call the model; None: its name in the registry.
    :param headers: sent with each request, for example ``Authorization``.
    :param timeout_s: seconds a request may take.
    :param load_timeout_s: seconds that loading a model may take.
    :param runtime: the server's class that reads MLflow models.
    :param metrics_urls: each replica's Prometheus page, in the order of ``urls``; empty: there are no figures
        of the requests, and golden answers alone say how a version does.
    :raises ArgumentError: ``argument.server_url``, ``argument.metrics_urls``, ``argument.name``.

    Example::

        backend = V2Backend(lake, client, urls=["http://mlserver-1:8080"], repository="/models")
        deploy(lake, client, backend, model=model, steps=[1.0], decide=decide, actor=actor, clock=clock)

    What it does not do: it installs no packages on the servers, it knows no latencies (MLServer shows none of
    a model), it counts a caller's wrong input as an error (MLServer does), and it sends no golden row in
    which a time is missing (MLServer cannot read one).
    """

    kind: ClassVar[str] = "v2"
    supports_weights: ClassVar[bool] = False

    def __init__(
        self,
        lake: Lake,
        client: RegistryClient,
        *,
        urls: Sequence[str],
        repository: str | Path,
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        load_timeout_s: float = 300.0,
        runtime: str = MLFLOW_RUNTIME,
        metrics_urls: Sequence[str] = (),
    ) -> None:
        if not urls or isinstance(urls, str):
            raise ArgumentError(
                "a V2 target has no servers",
                code="argument.server_url",
                todo="give the address of each replica",
            )
        if metrics_urls and len(metrics_urls) != len(urls):
            raise ArgumentError(
                f"{len(metrics_urls)} metrics pages are named for {len(urls)} servers",
                code="argument.metrics_urls",
                todo="give one for each server, in the same order, or none",
            )
        if name is not None and (not name.strip() or set(name) & set("/:")):
            raise ArgumentError(
                f"a served model cannot be called {name!r}",
                code="argument.name",
                todo="use letters, digits, dots, dashes and underscores",
            )
        pages: Sequence[str | None] = metrics_urls or [None] * len(urls)
        self._lake = lake
        self._client = client
        self._servers = [
            V2Server(
                url, headers=headers, timeout_s=timeout_s, load_timeout_s=load_timeout_s, metrics_url=page
            )
            for url, page in zip(urls, pages, strict=True)
        ]
        self._repository = ModelRepository(repository)
        self._name = name
        self._runtime = runtime
        self.has_figures = bool(metrics_urls)

    @property
    def endpoint(self) -> str:
        """The addresses of the replicas."""
        return ",".join(sorted(server.url for server in self._servers))

    def prepare(self, deployment: Deployment, model: ModelVersion) -> None:
        """Put the proved files into the repository and have each server load them under a name of their own.

        :raises ArgumentError: ``argument.model_repository``.
        :raises ConflictError: ``conflict.served_name``: somebody else's settings have this name.
        :raises ModelError: ``model.digest_mismatch``, ``model.untrusted``, ``model.not_loaded``: the servers
            are as before.
        """
        model = recorded_version(self._lake, model)
        self._repository.check()
        name = self._served(model.name, deployment.alias)
        self._see_that_it_is_ours(name)
        self._repository.bring_files(self._client, name, model)
        own = _beside(name, model.version)
        settings = settings_for(
            model, name=own, runtime=self._runtime, numbered=True, deployment=deployment.record_id
        )
        self._repository.write(name, beside(model.version), settings)
        try:
            self._each(lambda server: server.have(settings))
        except ModelError:
            # A server that restarts with settings that it cannot load does not start at all.
            with contextlib.suppress(UnavailableError):
                self._drop(name, model.version)
            raise

    def ready(self, deployment: Deployment, model: ModelVersion) -> Readiness:
        """Whether each server has loaded these very files; one that has not is told again."""
        name = self._served(model.name, deployment.alias)
        return self._all_have(self._repository.read(name, beside(model.version)), model)

    def ask(
        self, model: ModelVersion, frame: pd.DataFrame, *, alias: str, version: int | None
    ) -> tuple[Answer, ...]:
        """Ask each server. Under the callers' name MLServer's answers carry no version: there it is what the
        server says of that name before *and* after it answered.

        :raises DataError: ``data.v2_value``: a row cannot be said in the protocol's JSON.
        """
        request = as_infer_request(frame)
        name = self._served(model.name, alias)
        return tuple(self._answer(server, name, model, version, request) for server in self._servers)

    def shift(self, deployment: Deployment, model: ModelVersion, weight: float) -> None:
        """Have the version answer callers, on one server after the other.

        :raises ArgumentError: ``argument.steps``: a share other than 1.0.
        :raises ModelError: ``model.not_loaded``: one server could not; on all the old version answers.
        """
        if weight != 1:
            raise ArgumentError(
                f"a V2 server cannot give {weight:g} of the requests to a version",
                code="argument.steps",
                why="it serves one version at a time",
                todo="use steps=[1.0]",
            )
        model = recorded_version(self._lake, model)
        name = self._served(model.name, deployment.alias)
        now = self._repository.read(name, SERVING)
        if now is None or not is_of(now, model):
            self._repository.bring_files(self._client, name, model)
            self._repository.remember(name, deployment.record_id, now)
            now = settings_for(
                model, name=name, runtime=self._runtime, numbered=False, deployment=deployment.record_id
            )
            self._repository.write(name, SERVING, now)
        settings = now
        try:
            self._each(lambda server: server.have(settings))
        except ModelError:
            self._put_back(deployment, name)
            raise

    def settled(self, deployment: Deployment, model: ModelVersion, weight: float) -> Readiness:
        """Whether each server says that these very files answer callers; one that does not is told again."""
        name = self._served(model.name, deployment.alias)
        return self._all_have(self._repository.read(name, SERVING), model)

    def serving(self, model: str, alias: str) -> dict[int, float]:
        """The versions that the servers say they answer callers with, by their share of the servers; the
        shares sum up to less than 1 where a server answers callers with nothing."""
        name = self._served(model, alias)
        found = [server.loaded(name) for server in self._servers]
        counts = collections.Counter(
            each.version for each in found if each is not None and each.version is not None
        )
        return {version: count / len(self._servers) for version, count in counts.items()}

    def mark(self, deployment: Deployment | None, *, as_of: datetime) -> Any:
        """What each server has counted so far, and for which version."""
        if deployment is None or not self.has_figures:
            return None
        name = self._served(deployment.model.name, deployment.alias)
        return Mark.of(self._servers, name, as_of=as_of).to_json()

    def observe(self, deployment: Deployment | None, *, since: Any, as_of: datetime) -> Observation | None:
        """What the servers have counted since the mark."""
        if deployment is None or since is None:
            return None
        name = self._served(deployment.model.name, deployment.alias)
        return Mark.from_json(since).until(self._servers, name, as_of=as_of)

    def finish(self, deployment: Deployment, model: ModelVersion, *, keep_previous: bool) -> None:
        """Unload what was loaded beside; the previous version takes that place, if it is to be kept."""
        name = self._served(model.name, deployment.alias)
        previous = deployment.previous.version if deployment.previous is not None else None
        _, before = self._repository.before(name, deployment.record_id)
        if keep_previous and before is not None and before.get("versions") == [str(previous)]:
            self._keep(name, previous or 0, before)
        for version in self._versions_beside(name):
            if not (keep_previous and version == previous and version != model.version):
                self._drop(name, version)
        self._repository.forget(name, deployment.record_id)
        self._repository.clean(name)

    def abort(self, deployment: Deployment, model: ModelVersion) -> None:
        """What answered callers before answers them again, if this deployment changed it; the candidate is
        unloaded."""
        name = self._served(model.name, deployment.alias)
        self._put_back(deployment, name)
        self._drop(name, model.version)
        self._repository.forget(name, deployment.record_id)
        self._repository.clean(name)

    def _served(self, model: str, alias: str) -> str:
        return served_name(self._name or model, alias)

    def _see_that_it_is_ours(self, name: str) -> None:
        ours = self._repository.read(name, SERVING) is not None
        for server in self._servers:
            found = server.names().count(name)
            if found > ours:
                raise ConflictError(
                    f"the model server at {server.url} has a model {name} that was not deployed from here",
                    code="conflict.served_name",
                    why="its settings are elsewhere in the servers' model repository, or they read another"
                    " folder than the one named here",
                    todo="remove those settings or give the model another name in the connection; correct the"
                    " repository's path if it is the wrong one",
                    retryable=False,
                )

    def _all_have(self, settings: Mapping[str, Any] | None, model: ModelVersion) -> Readiness:
        if settings is None or not is_of(settings, model):
            return Readiness(ready=False, failed=True, reason="the model repository does not say so any more")
        missing = []
        for server in self._servers:
            try:
                server.have(settings)
            except ModelError as error:
                return Readiness(ready=False, reason=str(error), failed=True)
            if not server.has(settings):
                missing.append(server.url)
        reason = f"not yet on {', '.join(missing)}" if missing else ""
        return Readiness(ready=not missing, reason=reason, replicas=len(self._servers) - len(missing))

    def _answer(
        self,
        server: V2Server,
        name: str,
        model: ModelVersion,
        version: int | None,
        request: Mapping[str, Any],
    ) -> Answer:
        if version is not None:
            own = _beside(name, version)
            if server.loaded(own, version) is not None:
                answer = server.infer(own, version, request)
                said = answer.json() if answer.status == 200 else {}
                named = str(said.get("model_version", ""))
                return Answer(
                    replica=server.url,
                    status=answer.status,
                    seconds=answer.seconds,
                    version=int(named) if named.isdigit() else None,
                    predictions=predictions_of(said),
                )
        before = server.loaded(name)
        if before is None or (version is not None and before.version != version):
            return Answer(replica=server.url, status=404, seconds=0.0)
        answer = server.infer(name, None, request)
        after = server.loaded(name)
        return Answer(
            replica=server.url,
            status=answer.status,
            seconds=answer.seconds,
            version=before.version if before == after else None,
            predictions=predictions_of(answer.json()) if answer.status == 200 else None,
        )

    def _put_back(self, deployment: Deployment, name: str) -> None:
        changed, before = self._repository.before(name, deployment.record_id)
        now = self._repository.read(name, SERVING)
        if not changed or (now != before and _deployment_of(now) != deployment.record_id):
            # It changed nothing for callers, or somebody else has changed it since.
            return
        if before is None:
            self._repository.remove(name, SERVING)
            self._each(lambda server: server.unload(name))
        else:
            self._repository.write(name, SERVING, before)
            self._each(lambda server: server.have(before))
        log.info("What answered as %s before deployment %s does again.", name, deployment.record_id[:12])

    def _keep(self, name: str, version: int, before: Mapping[str, Any]) -> None:
        """Load a version beside that served until now."""
        parameters = {**before["parameters"], "version": str(version)}
        settings = {**before, "name": _beside(name, version), "parameters": parameters}
        self._repository.write(name, beside(version), settings)
        try:
            self._each(lambda server: server.have(settings))
        except ModelError as error:
            # A rollback brings its files again.
            log.warning("v%d could not be kept loaded: %s", version, error)
            self._drop(name, version)

    def _versions_beside(self, name: str) -> list[int]:
        places = list(self._repository.places(name))
        return [int(place[1:]) for place in places if place[:1] == "v" and place[1:].isdigit()]

    def _drop(self, name: str, version: int) -> None:
        self._repository.remove(name, beside(version))
        self._each(lambda server: server.unload(_beside(name, version)))

    def _each(self, do: Callable[[V2Server], None]) -> None:
        """Do something to every server, also where one fails; then raise what went wrong.

        :raises XOpsError: the worst: one that no retry mends, if there is any.
        """
        failed: list[XOpsError] = []
        for server in self._servers:
            try:
                do(server)
            except XOpsError as error:
                failed.append(error)
        if failed:
            raise min(failed, key=lambda error: error.retryable)


def _beside(name: str, version: int) -> str:
    return f"{name}:v{version}"


def _deployment_of(settings: Mapping[str, Any] | None) -> str | None:
    parameters = (settings or {}).get("parameters") or {}
    return (parameters.get("extra") or {}).get("xops_deployment")
