"""Connections of the declared sources, and the loading of each kind.

For :class:`~airflow_provider_xops.operators.data.IngestDatasetOperator`. Airflow's providers are imported
when a task needs them: a DAG with a source parses without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_xops.data.declared_sources import HttpSource, PrefixSource, SqlSource
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.operators._arguments import is_empty
from airflow_provider_xops.operators._database import sqlalchemy_engine_of
from airflow_provider_xops.version_compat import AirflowNotFoundException, object_storage_path

if TYPE_CHECKING:
    from airflow_provider_xops.data._spooling import Ingested
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["DECLARED", "ObjectStore", "load_declared", "no_filesystem"]

DECLARED = (SqlSource, HttpSource, PrefixSource)

# Each filesystem of fsspec has words of its own for the same things (S3, Google, Azure, local).
_TAGS = ("etag", "md5hash", "content_md5", "generation")
_TIMES = ("lastmodified", "last_modified", "mtime", "updated", "created")


def load_declared(lake: Lake, source: SqlSource | HttpSource | PrefixSource, **options: Any) -> Ingested:
    """Load what ``source`` declares, through its connection.

    :param options: table, partitions, mode, keys, schema, batch_id, format, delimiter, na_values,
        on_schema_change, source_conn_id, actor and as_of.
    :raises ArgumentError: an argument that this kind of source does not take, or no such connection.
    """
    for name in ("on_schema_change", "source_conn_id"):
        if options.pop(name) is not None:
            raise _not_taken(name, source)
    if isinstance(source, PrefixSource):
        return _load_prefix(lake, source, **options)
    of_files = {name: options.pop(name) for name in ("format", "delimiter", "na_values")}
    given = [name for name in ("format", "delimiter") if of_files[name] is not None]
    if given:
        raise _not_taken(given[0], source)
    if is_empty(source.conn_id):
        raise ArgumentError(
            f"the {type(source).__name__} names no connection", code="argument.empty",
            why="its template rendered to nothing", todo="give conn_id a value",
        )  # fmt: skip
    if isinstance(source, SqlSource):
        return _load_sql(lake, source, **options)
    return _load_http(lake, source, **options)


class ObjectStore:
    """Files below a URI of Airflow's object storage."""

    def __init__(self, uri: str, conn_id: str | None) -> None:
        from airflow_provider_xops.data._prefix_store import shown

        try:
            self._root = object_storage_path(uri.rstrip("/") + "/", conn_id=conn_id)
            self._files = self._root.fs
        except ValueError:  # no filesystem is registered for the scheme
            raise no_filesystem(uri) from None
        self._prefix = str(self._files._strip_protocol(self._root.path)).rstrip("/") + "/"
        self._uri = f"{shown(uri).rstrip('/')}/"

    def list(self) -> Iterator[Any]:
        self._files.invalidate_cache()  # what an earlier listing in this process saw
        try:
            found = self._files.find(self._prefix, detail=True)
        except FileNotFoundError:
            return
        for path, info in sorted(found.items()):
            if info.get("type") != "directory" and not path.endswith("/"):
                yield self._info(path, info)

    def look(self, found: Any) -> Any | None:
        self._files.invalidate_cache()
        path = self._prefix + found.name
        try:
            return self._info(path, self._files.info(path))
        except FileNotFoundError:
            return None

    def open(self, found: Any) -> BinaryIO:
        opened: BinaryIO = self._files.open(self._prefix + found.name, "rb")
        return opened

    def _info(self, path: str, info: dict[str, Any]) -> Any:
        from airflow_provider_xops.data.source_prefix import ObjectInfo

        name = path.removeprefix(self._prefix)
        told = {key.lower(): value for key, value in info.items() if value is not None}
        return ObjectInfo(
            name=name,
            uri=self._uri + name,
            size=int(told.get("size", 0)),
            modified=_moment(_first(told, _TIMES)),
            tag=str(_first(told, _TAGS) or ""),
        )


def _load_prefix(lake: Lake, source: PrefixSource, **options: Any) -> Ingested:
    from airflow_provider_xops.data.source_prefix import LocalFolder, ingest_prefix

    if options.pop("batch_id") is not None:
        raise _not_taken("batch_id", source)

    def store(uri: str) -> Any:
        local = "://" not in uri or uri.startswith("file://")
        return LocalFolder(uri) if local else ObjectStore(uri, source.conn_id)

    return ingest_prefix(lake, options.pop("table"), source, store=store, **options)


def _load_sql(lake: Lake, source: SqlSource, **options: Any) -> Ingested:
    from airflow_provider_xops.data.source_sql import ingest_sql

    with sqlalchemy_engine_of(source.conn_id) as engine:
        return ingest_sql(lake, options.pop("table"), source, engine=engine, **options)


def _load_http(lake: Lake, source: HttpSource, **options: Any) -> Ingested:
    try:
        from airflow.providers.http.hooks.http import HttpHook
    except ImportError:
        raise ArgumentError(
            "HTTP sources need Airflow's HTTP provider", code="argument.provider",
            todo="pip install 'airflow-provider-xops[http]'",
        ) from None  # fmt: skip
    from airflow_provider_xops.data.source_http import ingest_http

    hook = HttpHook(method=source.method.upper(), http_conn_id=source.conn_id)
    try:
        session = hook.get_conn()
    except AirflowNotFoundException:
        raise ArgumentError(
            f"there is no connection {source.conn_id!r}", code="argument.http_conn_id",
            todo="create it, or correct conn_id",
        ) from None  # fmt: skip
    except Exception as error:  # of what the connection says, such as an extra that is none
        raise ArgumentError(
            f"the connection {source.conn_id!r} gives no HTTP session", code="argument.http_conn_id",
            why=f"its hook raised {type(error).__name__}", todo="correct the connection",
        ) from None  # fmt: skip
    with session:
        return ingest_http(
            lake, options.pop("table"), source, session=session, base_url=hook.base_url, **options
        )


def no_filesystem(uri: str) -> ArgumentError:
    """The error of a URI whose scheme no installed provider knows."""
    return ArgumentError(
        f"nothing here opens {uri.partition('://')[0]}:// addresses", code="argument.source_uri",
        why="no installed Airflow provider brings a filesystem for them",
        todo="install the one that does; for s3://, pip install 'airflow-provider-xops[amazon]'",
    )  # fmt: skip


def _first(told: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((told[name] for name in names if name in told), None)


def _moment(given: Any) -> datetime | None:
    if isinstance(given, int | float):
        return datetime.fromtimestamp(given, UTC)
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            return None
    if isinstance(given, datetime):
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    return None


def _not_taken(name: str, source: Any) -> ArgumentError:
    todo = "name the connection in the source's conn_id" if name == "source_conn_id" else f"leave {name} out"
    return ArgumentError(f"a {type(source).__name__} takes no {name}", code="argument.source", todo=todo)
