"""Databases behind Airflow's connections, for operators that ask them and leave the rows there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.version_compat import AirflowNotFoundException, BaseHook

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["sqlalchemy_engine_of"]

PROVIDER = (
    "if a package is missing: pip install 'airflow-provider-xops[sql]' and the Airflow provider of the"
    " database (apache-airflow-providers-postgres, for one); else correct the connection"
)


@contextmanager
def sqlalchemy_engine_of(conn_id: str) -> Iterator[sa.Engine]:
    """The SQLAlchemy engine of a connection, closed afterwards; its errors name no values of parameters.

    :raises ArgumentError: ``argument.sql_conn_id``: there is no such connection, its type has no database
        hook here, or the hook gives no engine. The reason names the kind of error only: messages of drivers
        may repeat the address with its credentials.
    """
    engine = _engine(conn_id)
    try:
        yield engine
    finally:
        engine.dispose()


def _engine(conn_id: str) -> Any:
    try:
        connection: Any = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise _refused(
            f"there is no connection {conn_id!r}", "", "create it, or correct its name in the task"
        ) from None
    kind = connection.conn_type
    try:
        hook = connection.get_hook()
        if not hasattr(hook, "get_sqlalchemy_engine"):
            raise _refused(
                f"the connection {conn_id!r} is of type {kind!r}",
                "that is no database",
                "name one of a database",
            )
        return hook.get_sqlalchemy_engine({"hide_parameters": True})
    except ArgumentError:
        raise
    except Exception as error:  # providers, SQLAlchemy and drivers each have their own
        raise _refused(
            f"the connection {conn_id!r} of type {kind!r} gives no database",
            f"its hook raised {type(error).__name__}",
            PROVIDER,
        ) from None


def _refused(what: str, why: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.sql_conn_id", why=why, todo=todo)
