"""MLflow behind one small client: bounded waiting, typed errors, secrets only in the environment of a call.

For every function of the registry and for the MLflow hook. MLflow's own client waits up to four minutes on a
refused port, reports a slow server as an internal error, and takes credentials from the process environment
only. :meth:`RegistryClient.session` gives it the environment it needs, puts the old one back, and turns
whatever goes wrong into one of our errors.

What it does not do: it changes no fluent state of MLflow (``mlflow.set_tracking_uri`` stays the user's), and
it is not for the triggerer's event loop (MLflow has no asynchronous client).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.registry._errors import translated
from airflow_provider_xops.settings import MlflowSettings

__all__ = ["KEY_TAG", "RegistryClient", "quiet_mlflow", "quoted"]

log = logging.getLogger(__name__)

KEY_TAG = "xops.key"

# The environment is the process's: two threads must not mix their credentials.
_ENVIRONMENT_LOCK = threading.RLock()
_CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    # Without it, errors of schema enforcement print the rows.
    "MLFLOW_DISABLE_SCHEMA_DETAILS": "true",
}
_NOISY = (
    "mlflow.sklearn",
    "mlflow.models.model",
    "mlflow.store.model_registry.abstract_store",
    "mlflow.utils.environment",
)


class RegistryClient:
    """One MLflow server.

    :param settings: where it is, with which credentials, and how long to wait.

    >>> from airflow_provider_xops.settings import MlflowSettings
    >>> RegistryClient(MlflowSettings(tracking_uri="http://localhost:5000", password="hidden"))
    RegistryClient('http://localhost:5000')
    """

    def __init__(self, settings: MlflowSettings) -> None:
        self.settings = settings
        self._mlflow: Any = None

    def __repr__(self) -> str:
        return f"RegistryClient({self.settings.tracking_uri!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "_mlflow": None}

    @contextlib.contextmanager
    def session(self, doing: str, *, repeat: bool = True) -> Iterator[Any]:
        """An ``mlflow.MlflowClient``, inside the environment it needs.

        :param doing: what is being done, for the error's first sentence ("setting alias champion of m").
        :param repeat: whether MLflow's client may repeat a request that got no answer; False where a repeated
            request would make a second thing of its kind.
        :raises UnavailableError: the server is down, slow, or answers with server errors (retryable).
        :raises RegistryError: it refused (``registry.forbidden``, ``registry.unauthenticated``,
            ``registry.refused``).
        :raises NotFoundError: ``not_found.registry``.
        """
        variables = self._variables()
        if not repeat:
            variables["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        with _ENVIRONMENT_LOCK, _environment(variables), translated(doing, self.settings):
            if self._mlflow is None:
                # Imported inside the environment that turns its telemetry off.
                from mlflow import MlflowClient

                uri = self.settings.tracking_uri
                self._mlflow = MlflowClient(tracking_uri=uri, registry_uri=uri)
            yield self._mlflow

    def preflight(self) -> None:
        """Prove that the server and its database answer this user.

        ``/health`` is no proof: it answers with a dead database and for a refused Host header.
        """
        with self.session("checking that MLflow answers") as mlflow:
            mlflow.search_registered_models(max_results=1)

    def get_version(self, name: str, version: int) -> Any:
        """MLflow's entity of one model version.

        :raises NotFoundError: ``not_found.model_version``.
        """
        try:
            with self.session(f"reading model {name} v{version}") as mlflow:
                return mlflow.get_model_version(name, str(version))
        except NotFoundError as error:
            raise NotFoundError(
                f"model {name} has no version {version} in MLflow",
                code="not_found.model_version",
                why=error.why,
                todo="look at the model's page in MLflow; a deleted version cannot be brought back",
            ) from None

    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a model and the versions they point to.

        :raises NotFoundError: ``not_found.model``.
        """
        try:
            with self.session(f"reading the aliases of model {name}") as mlflow:
                found = mlflow.get_registered_model(name).aliases
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no model {name} in MLflow",
                code="not_found.model",
                why=error.why,
                todo="check the model's name and the tracking URI (and the workspace, if there are any)",
            ) from None
        return {alias: int(version) for alias, version in found.items()}

    def alias_target(self, name: str, alias: str) -> int | None:
        """The version an alias points to; None if it points nowhere."""
        return self.aliases(name).get(alias)

    def experiment_id(self, name: str) -> str:
        """The id of the experiment called ``name``, made if there is none."""
        with self.session(f"finding experiment {name}") as mlflow:
            found = mlflow.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            with contextlib.suppress(Exception):
                # Another task may make it at the same moment, or a retried request has made it already: the
                # search below says which, and says why there is none.
                return str(mlflow.create_experiment(name))
            found = mlflow.get_experiment_by_name(name)
            return str(found.experiment_id) if found is not None else str(mlflow.create_experiment(name))

    def run_url(self, run_id: str, experiment_id: str | None = None) -> str:
        """The address of a run's page."""
        return self._page(
            f"/experiments/{experiment_id}/runs/{run_id}" if experiment_id else f"/runs/{run_id}"
        )

    def model_url(self, name: str) -> str:
        """The address of a registered model's page."""
        return self._page(f"/models/{quote(name, safe='')}")

    def version_url(self, name: str, version: int) -> str:
        """The address of a model version's page.

        >>> from airflow_provider_xops.settings import MlflowSettings
        >>> client = RegistryClient(MlflowSettings(tracking_uri="http://localhost:5000"))
        >>> client.version_url("late flights", 3)
        'http://localhost:5000/#/models/late%20flights/versions/3'
        """
        return self._page(f"/models/{quote(name, safe='')}/versions/{version}")

    def _page(self, path: str) -> str:
        base = (self.settings.ui_url or self.settings.tracking_uri).rstrip("/")
        workspace = f"?workspace={quote(self.settings.workspace, safe='')}" if self.settings.workspace else ""
        return f"{base}/#{path}{workspace}"

    def _variables(self) -> dict[str, str | None]:
        settings = self.settings
        variables: dict[str, str | None] = {
            **_QUIET,
            "MLFLOW_TRACKING_URI": settings.tracking_uri,
            "MLFLOW_REGISTRY_URI": None,
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(settings.timeout_s))),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(settings.max_retries),
            # MLflow reads whole seconds only.
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": str(round(settings.backoff_factor)),
            "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
        }
        credentials = (settings.username, settings.password, settings.token)
        if any(credentials):
            # All three: a user name left in the environment would win over the connection's token.
            variables.update(zip(_CREDENTIALS, credentials, strict=True))
        if settings.workspace:
            variables["MLFLOW_WORKSPACE"] = settings.workspace
        return variables


@contextlib.contextmanager
def quiet_mlflow() -> Iterator[None]:
    """The environment for MLflow's local functions: nothing is phoned home, printed, or warned about."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    with _ENVIRONMENT_LOCK, _environment(_QUIET):
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def quoted(value: str) -> str:
    """``value`` as a literal of MLflow's filter language.

    :raises ArgumentError: it holds both kinds of quotes, which that language cannot express.

    >>> quoted("late flights")
    "'late flights'"
    """
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise ArgumentError(
        f"the name {value!r} has both kinds of quotes", code="argument.name", todo="use a name without quotes"
    )


@contextlib.contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    try:
        _set(variables)
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
