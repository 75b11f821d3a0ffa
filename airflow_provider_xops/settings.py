"""Where the lake and MLflow are, as two small dataclasses: all that the domain sees of configuration.

For notebooks and the ``xops`` command, which build them from the environment (:func:`lake_settings_from_env`,
:func:`mlflow_settings_from_env`: argument > ``XOPS_*`` variable > default), and for the Airflow hooks, which
build them from a connection. Secrets never appear in a ``repr``. Importing this module reads nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from airflow_provider_xops.errors import ArgumentError

__all__ = [
    "LakeSettings",
    "MlflowSettings",
    "lake_settings_from_env",
    "mlflow_settings_from_env",
    "without_userinfo",
]


@dataclass(frozen=True)
class LakeSettings:
    """How to reach one lake.

    :param uri: a local folder (plain path or ``file://``) or ``s3://bucket/prefix``, without credentials.
    :param storage_options: ``AWS_*`` options, the same names for deltalake and for us (``AWS_ENDPOINT_URL``,
        ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ALLOW_HTTP``, ...).
    :param credentials: called at every open; gives fresh ``AWS_*`` options that win over ``storage_options``.
    :param expected_lake_id: the UUID the lake must have; None accepts any.
    :param timeout_s: seconds one storage request may take.
    :raises ArgumentError: the URI is empty or carries credentials.

    >>> LakeSettings("s3://lake/prod", {"AWS_SECRET_ACCESS_KEY": "hidden"})
    LakeSettings(uri='s3://lake/prod', expected_lake_id=None, timeout_s=30)
    """

    uri: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Callable[[], Mapping[str, str]] | None = field(default=None, repr=False, compare=False)
    expected_lake_id: str | None = None
    timeout_s: float = 30

    def __post_init__(self) -> None:
        if not str(self.uri).strip():
            raise ArgumentError(
                "the lake has no URI", code="argument.lake_uri",
                todo="pass one, set XOPS_LAKE_URI, or give it in the xops_lake connection",
            )  # fmt: skip
        if "://" in self.uri and without_userinfo(self.uri) != self.uri:
            raise ArgumentError(
                f"the lake's URI {without_userinfo(self.uri)} carries credentials",
                code="argument.uri_credentials",
                todo="move them into the storage options or the AWS connection",
            )  # fmt: skip

    def resolved_options(self) -> dict[str, str]:
        """The storage options with fresh credentials; AWS names in upper case, values as text."""
        merged = {**self.storage_options, **(self.credentials() if self.credentials is not None else {})}
        return {_option_name(name): str(value) for name, value in merged.items()}


@dataclass(frozen=True)
class MlflowSettings:
    """How to reach one MLflow server, and how long to wait for it.

    A user name and password in ``tracking_uri`` are moved to their own fields, so that the URI can be shown.

    :param tracking_uri: ``http(s)://host:port``.
    :param ui_url: where people open MLflow's pages, if not at ``tracking_uri``.
    :param timeout_s: seconds one request may take; ``max_retries`` and ``backoff_factor`` bound the retries
        (MLflow's own defaults hang for minutes on a refused port).
    :param workspace: MLflow workspace, where the server has them.
    """

    tracking_uri: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ui_url: str | None = None
    timeout_s: int = 15
    max_retries: int = 2
    backoff_factor: float = 1.0
    workspace: str | None = None

    def __post_init__(self) -> None:
        if not str(self.tracking_uri).strip():
            raise ArgumentError(
                "MLflow has no tracking URI", code="argument.mlflow_uri",
                todo="pass one, set XOPS_MLFLOW_TRACKING_URI, or give it in the xops_mlflow connection",
            )  # fmt: skip
        parts = urlsplit(self.tracking_uri)
        if "@" in parts.netloc:
            user, _, password = parts.netloc.rpartition("@")[0].partition(":")
            object.__setattr__(self, "username", self.username or unquote(user) or None)
            object.__setattr__(self, "password", self.password or unquote(password) or None)
            object.__setattr__(self, "tracking_uri", without_userinfo(self.tracking_uri))
        if self.ui_url:
            object.__setattr__(self, "ui_url", without_userinfo(self.ui_url))


def lake_settings_from_env(
    uri: str | None = None,
    *,
    storage_options: Mapping[str, str] | None = None,
    expected_lake_id: str | None = None,
    timeout_s: float | None = None,
    environ: Mapping[str, str] | None = None,
) -> LakeSettings:
    """Lake settings from arguments, else from ``XOPS_LAKE_URI``, ``XOPS_LAKE_STORAGE_OPTIONS`` (a JSON
    object), ``XOPS_LAKE_ID`` and ``XOPS_LAKE_TIMEOUT_S``, else defaults. AWS credentials that are in neither
    are looked up by boto3's own chain when the lake is opened.

    :raises ArgumentError: no URI anywhere (``argument.lake_uri``), or a variable that cannot be read
        (``argument.environment``).

    >>> lake_settings_from_env(environ={"XOPS_LAKE_URI": "/data/lake"}).uri
    '/data/lake'
    """
    env = os.environ if environ is None else environ
    if storage_options is None:
        storage_options = _json_object(env, "XOPS_LAKE_STORAGE_OPTIONS")
    if timeout_s is None:
        timeout_s = _number(env, "XOPS_LAKE_TIMEOUT_S", 30.0)
    return LakeSettings(
        uri or env.get("XOPS_LAKE_URI", ""),
        storage_options,
        expected_lake_id=expected_lake_id or env.get("XOPS_LAKE_ID") or None,
        timeout_s=timeout_s,
    )


def mlflow_settings_from_env(
    tracking_uri: str | None = None, *, environ: Mapping[str, str] | None = None
) -> MlflowSettings:
    """MLflow settings from the argument, else from ``XOPS_MLFLOW_TRACKING_URI``, ``_USERNAME``,
    ``_PASSWORD``, ``_TOKEN``, ``_UI_URL``, ``_TIMEOUT_S``, ``_MAX_RETRIES``, ``_BACKOFF_FACTOR`` and
    ``_WORKSPACE``; URI and credentials default to MLflow's own variables (``MLFLOW_TRACKING_URI``, ...).

    :raises ArgumentError: no URI anywhere (``argument.mlflow_uri``), or a variable that is not a number.

    >>> mlflow_settings_from_env("http://user:secret@mlflow:5000", environ={}).tracking_uri
    'http://mlflow:5000'
    """
    env = os.environ if environ is None else environ

    def text(name: str, default: str | None = None) -> str | None:
        return env.get(f"XOPS_MLFLOW_{name}") or default

    return MlflowSettings(
        tracking_uri or text("TRACKING_URI", env.get("MLFLOW_TRACKING_URI")) or "",
        username=text("USERNAME", env.get("MLFLOW_TRACKING_USERNAME")),
        password=text("PASSWORD", env.get("MLFLOW_TRACKING_PASSWORD")),
        token=text("TOKEN", env.get("MLFLOW_TRACKING_TOKEN")),
        ui_url=text("UI_URL"),
        timeout_s=int(_number(env, "XOPS_MLFLOW_TIMEOUT_S", _default_of("timeout_s"))),
        max_retries=int(_number(env, "XOPS_MLFLOW_MAX_RETRIES", _default_of("max_retries"))),
        backoff_factor=_number(env, "XOPS_MLFLOW_BACKOFF_FACTOR", _default_of("backoff_factor")),
        workspace=text("WORKSPACE"),
    )


def without_userinfo(uri: str) -> str:
    """The URI without a user name or password.

    >>> without_userinfo("https://user:secret@host:8080/path")
    'https://host:8080/path'
    """
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def _option_name(name: str) -> str:
    # deltalake accepts both cases; one spelling lets fresh credentials replace old ones.
    return name.upper() if name.lower().startswith("aws_") else name


def _default_of(name: str) -> float:
    default = {f.name: f.default for f in dataclasses.fields(MlflowSettings)}[name]
    assert isinstance(default, int | float)
    return default


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        raise ArgumentError(
            f"the environment variable {name} is not a number",
            code="argument.environment",
            todo="set it to a number",
        ) from None


def _json_object(env: Mapping[str, str], name: str) -> dict[str, str]:
    try:
        value = json.loads(env.get(name) or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        # The text may hold a secret key: it is not repeated here.
        raise ArgumentError(
            f"the environment variable {name} is not a JSON object", code="argument.environment",
            todo='set it to JSON such as {"AWS_REGION": "eu-central-1"}',
        )  # fmt: skip
    return {str(key): str(item) for key, item in value.items()}
