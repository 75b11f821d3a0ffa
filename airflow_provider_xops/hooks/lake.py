"""The lake behind an Airflow connection of type ``xops_lake``.

For operators and for tasks of one's own (``LakeHook().get_lake()``). The hook only resolves settings; what
can be done with a lake is in :mod:`airflow_provider_xops.lake`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, XOpsError
from airflow_provider_xops.hooks._forms import ConnectionForm
from airflow_provider_xops.hooks._settings import configured, connection_or_none, extra_of, mask, number
from airflow_provider_xops.version_compat import AirflowNotFoundException, BaseHook

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.settings import LakeSettings
    from airflow_provider_xops.version_compat import Connection

__all__ = ["LakeHook"]

_SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD")


class LakeHook(ConnectionForm, BaseHook):
    """Opens the lake that a connection names.

    The connection's host is the lake's URI: an absolute path, ``file://`` or ``s3://bucket/prefix``. For S3,
    either login and password are the key pair, or ``aws_conn_id`` names an AWS connection (roles, profiles
    and short-lived credentials included), asked again at every open; with neither, boto3's own chain is used.
    Where the default connection does not exist, ``[xops] lake_uri`` and ``XOPS_LAKE_URI`` are looked at.

    :param lake_conn_id: the connection's id.
    :param uri: the lake's URI, before what the connection says.
    :param lake_id: refuse any lake but this one.
    :param timeout_s: seconds one request to the storage may take.
    :raises ArgumentError: no URI, a relative path, or a connection that does not exist.
    :raises LakeError: no lake there (the hook never makes one), or another one than expected.

    Example::

        lake = LakeHook("xops_lake_default").get_lake()
        lake.lake_id

    What it does not do: it never creates or migrates a lake (``xops lake init`` does).
    """

    conn_name_attr = "lake_conn_id"
    default_conn_name = "xops_lake_default"
    conn_type = "xops_lake"
    hook_name = "XOps lake"

    def __init__(
        self,
        lake_conn_id: str = default_conn_name,
        *,
        uri: str | None = None,
        lake_id: str | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lake_conn_id = lake_conn_id
        self.uri = uri
        self.lake_id = lake_id
        self.timeout_s = timeout_s

    def get_settings(self) -> LakeSettings:
        """The settings the domain takes, resolved now; secrets in them are masked in the log from here on."""
        from airflow_provider_xops.settings import LakeSettings, lake_settings_from_env

        connection = connection_or_none(
            self.lake_conn_id, default=self.default_conn_name, conn_type=self.conn_type
        )
        extra = extra_of(connection)
        options = _storage_options(connection, extra)
        mask(
            *(value for name, value in options.items() if any(word in name.upper() for word in _SECRET_WORDS))
        )
        timeout_s = self.timeout_s
        if timeout_s is None:
            timeout_s = number(extra.get("timeout") or configured("lake_timeout_s"), "timeout")
        settings = lake_settings_from_env(
            self.uri or _uri_of(connection) or extra.get("uri") or configured("lake_uri"),
            storage_options=options or None,
            expected_lake_id=self.lake_id or extra.get("lake_id") or configured("lake_id"),
            timeout_s=timeout_s,
        )
        if "://" not in settings.uri and not PurePosixPath(settings.uri).is_absolute():
            raise ArgumentError(
                f"the lake's URI {settings.uri!r} is a relative path",
                code="argument.lake_uri",
                why="each Airflow process has its own working directory: they would not mean the same folder",
                todo="give an absolute path or an s3:// URI",
            )
        if aws_conn_id := extra.get("aws_conn_id"):
            fresh = functools.partial(aws_options, str(aws_conn_id), region=extra.get("region"))
            return LakeSettings(
                settings.uri, settings.storage_options, fresh, settings.expected_lake_id, settings.timeout_s
            )
        return settings

    def get_lake(self) -> Lake:
        """The lake, opened with credentials fetched now. Open it only in the process that uses it."""
        from airflow_provider_xops.lake.lake import open_lake

        return open_lake(self.get_settings())

    def get_conn(self) -> Lake:
        """The same as :meth:`get_lake`, by Airflow's customary name."""
        return self.get_lake()

    def test_connection(self) -> tuple[bool, str]:
        """Race a put-if-absent on the storage, then open the lake; gives its id, or what is wrong."""
        try:
            from airflow_provider_xops.lake.lake import open_lake
            from airflow_provider_xops.lake.storage import open_storage

            settings = self.get_settings()
            open_storage(settings).check_put_if_absent()
            lake = open_lake(settings)
        except XOpsError as error:
            return False, str(error)
        except Exception as error:  # the form must show an answer; foreign texts may carry credentials
            return (
                False,
                f"{type(error).__name__} while opening the lake; the log of the server has the details",
            )
        return True, f"Lake {lake.lake_id} at {lake.uri}: of several writers of one name exactly one wins."


def aws_options(aws_conn_id: str, *, region: str | None = None) -> Mapping[str, str]:
    """``AWS_*`` storage options with the credentials an AWS connection gives at this moment.

    :raises ArgumentError: the Amazon provider is not installed, or there is no such connection.
    """
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError:
        raise ArgumentError(
            f"the lake's connection names the AWS connection {aws_conn_id!r}", code="argument.amazon_missing",
            why="the Amazon provider is not installed", todo="pip install 'airflow-provider-xops[amazon]'",
        ) from None  # fmt: skip
    try:
        # The provider itself only warns and goes on without credentials.
        BaseHook.get_connection(aws_conn_id)
    except AirflowNotFoundException:
        raise ArgumentError(
            f"there is no Airflow connection {aws_conn_id!r}", code="argument.connection",
            todo="add it, or correct aws_conn_id in the lake's connection",
        ) from None  # fmt: skip
    hook: Any = AwsBaseHook(aws_conn_id=aws_conn_id, client_type="s3", region_name=region)
    credentials = hook.get_credentials()
    options = {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_SESSION_TOKEN": credentials.token,
        "AWS_REGION": region or hook.region_name,
        "AWS_ENDPOINT_URL": hook.conn_config.get_service_endpoint_url("s3"),
    }
    mask(credentials.secret_key, credentials.token)
    return {name: value for name, value in options.items() if value}


def _storage_options(connection: Connection | None, extra: Mapping[str, Any]) -> dict[str, str]:
    given = extra.get("storage_options") or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = None
    if not isinstance(given, dict):
        raise ArgumentError(
            "the lake connection's storage options are not a JSON object", code="argument.connection_extra",
            todo='write them as {"AWS_REGION": "eu-central-1"}',
        )  # fmt: skip
    fields = {
        "AWS_ACCESS_KEY_ID": connection.login if connection else None,
        "AWS_SECRET_ACCESS_KEY": connection.password if connection else None,
        "AWS_ENDPOINT_URL": extra.get("endpoint_url"),
        "AWS_REGION": extra.get("region"),
    }
    given_options = {str(name): str(value) for name, value in given.items()}
    return given_options | {name: str(value) for name, value in fields.items() if value}


def _uri_of(connection: Connection | None) -> str | None:
    """The URI from host and schema: ``xops-lake://s3://bucket/lake`` puts its path into the schema."""
    if connection is None:
        return None
    host = connection.host or ""
    return f"{host.rstrip('/')}/{connection.schema}" if connection.schema else host or None
