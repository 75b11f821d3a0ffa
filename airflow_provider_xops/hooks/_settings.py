"""Where a hook's settings come from: argument > connection > ``[xops]`` configuration > ``XOPS_*`` > default.

For the hooks. The last two steps are :mod:`airflow_provider_xops.settings`'s own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.version_compat import AirflowNotFoundException, BaseHook, conf, mask_secret

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Connection

__all__ = ["configured", "connection_or_none", "extra_of", "mask", "number"]


def connection_or_none(conn_id: str, *, default: str, conn_type: str) -> Connection | None:
    """The connection, or None where the *default* one was never made (configuration is asked then).

    :raises ArgumentError: a connection asked for by name does not exist (``argument.connection``), or is of
        another type.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        if conn_id == default:
            return None
        raise ArgumentError(
            f"there is no Airflow connection {conn_id!r}", code="argument.connection",
            todo=f"add it (type {conn_type}), or pass the id of one that exists",
        ) from None  # fmt: skip
    if connection.conn_type != conn_type:
        raise ArgumentError(
            f"the Airflow connection {conn_id!r} is of type {connection.conn_type}",
            code="argument.connection",
            why=f"a connection of type {conn_type} is needed",
            todo="pass the id of one of that type",
        )
    return connection


def extra_of(connection: Connection | None) -> dict[str, Any]:
    """The connection's extra fields that hold something.

    :raises ArgumentError: the extra field is not a JSON object (its text is not repeated: it may hold
        secrets).
    """
    if connection is None or not connection.extra:
        return {}
    try:
        extra = json.loads(connection.extra)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ArgumentError(
            f"the extra field of the Airflow connection {connection.conn_id!r} is not a JSON object",
            code="argument.connection_extra", todo="correct it in the connection's form",
        )  # fmt: skip
    return {name: value for name, value in extra.items() if value not in (None, "")}


def configured(option: str) -> str | None:
    """An option of the ``[xops]`` section, or None where it is not set."""
    value = conf.get("xops", option, fallback=None)
    return str(value) if value not in (None, "") else None


def number(value: Any, name: str) -> float | None:
    """A setting as a number; None stays None.

    :raises ArgumentError: it is not a number (``argument.setting``).
    """
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"the setting {name} is not a number",
            code="argument.setting",
            todo="correct it in the connection",
        ) from None


def mask(*secrets: str | None) -> None:
    """Have Airflow replace these texts by ``***`` in the task's log from now on."""
    for secret in secrets:
        if secret:
            mask_secret(secret)
