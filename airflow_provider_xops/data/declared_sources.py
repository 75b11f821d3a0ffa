"""What an ingestion reads from, besides files: a database, an HTTP API, a folder that grows.

For DAGs (through :mod:`airflow_provider_xops.operators.sources`) and for the readers of this room. A
declaration is small, frozen and says *what* is read, never how to log in: that is the connection's.

This module is imported when a DAG is parsed: it loads nothing but the standard library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Self

__all__ = [
    "Cursor",
    "HttpSource",
    "NextLink",
    "Offset",
    "PageNumber",
    "Pagination",
    "PrefixSource",
    "SqlSource",
]


@dataclass(frozen=True, kw_only=True)
class _Declared:
    """Gives Airflow a way to render the fields of a frozen declaration."""

    template_fields: ClassVar[tuple[str, ...]] = ()

    def resolve(self, context: Mapping[str, Any], *ignored: Any, **more: Any) -> Self:
        """The declaration with its ``template_fields`` rendered by the task in ``context``.

        Airflow calls it where such an object stands in an operator's template field, in mapped tasks too.
        """
        task = context["task"]
        environment = task.get_template_env()
        rendered = {
            name: task.render_template(getattr(self, name), context, environment)
            for name in self.template_fields
            if getattr(self, name) is not None
        }
        return dataclasses.replace(self, **rendered)


@dataclass(frozen=True, kw_only=True)
class SqlSource(_Declared):
    """Rows of a table or of one SELECT behind an Airflow database connection.

    Rows are streamed by a server-side cursor, ``chunk_rows`` at a time; they are never all in memory.

    :param conn_id: the Airflow connection; any whose hook is a ``DbApiHook`` with an SQLAlchemy URL.
    :param table: the table to read; ``schema`` is its database schema. Exactly one of ``table`` and
        ``query``.
    :param query: one SELECT. ``:partition`` in it is the partition that is loaded, other ``:names`` come from
        ``parameters``: values are bound, never written into the text. Two colons are a cast, ``\\:`` is a
        colon.
    :param parameters: values of the query's ``:names``.
    :param columns: the columns to read; None: all.
    :param watermark: a column that only grows (a time or a whole number; also times as ISO text of one form):
        each run reads the rows above the highest one that was loaded. Modes ``append`` and ``merge``.
    :param lag: in ``merge`` mode, how far below the last mark to read again (a ``timedelta``, or a number for
        numbers), for rows that were committed late.
    :param null_watermark: rows without a mark: ``refuse`` them (the default), ``skip`` them with a warning,
        or ``load`` them together with what is new (``merge`` mode).
    :param name: under which the watermark is kept; None: made of connection and table, or query.
    :param timezone: the IANA zone of timestamps that the database keeps without one.
    :param order_by: the order in which rows are kept; None: by the operator's ``keys``, else by all columns.
    :param chunk_rows: rows fetched at a time.

    Example::

        SqlSource(conn_id="shop", query="SELECT * FROM orders WHERE day = CAST(:partition AS date)")
        SqlSource(conn_id="shop", table="orders", watermark="updated_at", lag=timedelta(minutes=10))

    What it does not do: it deletes nothing that was deleted at the source, and it writes nothing there.
    """

    template_fields: ClassVar[tuple[str, ...]] = (
        "conn_id", "table", "schema", "query", "parameters", "columns", "watermark", "name", "timezone",
    )  # fmt: skip

    conn_id: str
    table: str | None = None
    query: str | None = None
    schema: str | None = None
    columns: Sequence[str] | None = None
    parameters: Mapping[str, Any] | None = field(default=None, repr=False)
    watermark: str | None = None
    lag: timedelta | float | None = None
    null_watermark: str = "refuse"
    name: str | None = None
    timezone: str | None = None
    order_by: Sequence[str] = ()
    chunk_rows: int = 50_000


@dataclass(frozen=True)
class NextLink:
    """Each page names the address of the next one.

    :param path: where in the body; None: the ``Link: <...>; rel="next"`` header. A page without one is the
        last. Links to another host are refused.
    """

    path: str | None = None


@dataclass(frozen=True)
class PageNumber:
    """Pages are numbered. The first one without records, or that is not there (404), is behind the last.

    :param param: the query parameter of the number, beginning with ``start``.
    :param size_param: the query parameter that asks for ``size`` records; None: none does.
    """

    param: str = "page"
    start: int = 1
    size_param: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Offset:
    """Pages are cut by offset and limit. The first one without records, or that is not there, ends them.

    The next offset is the number of records that came, which may be fewer than ``limit`` a page.
    """

    limit: int
    param: str = "offset"
    limit_param: str = "limit"


@dataclass(frozen=True)
class Cursor:
    """Each page gives a token for the next one.

    :param path: where in the body the token is; absent, null, false or empty in the last page.
    :param param: the query parameter that takes it.
    """

    path: str
    param: str = "cursor"


Pagination = NextLink | PageNumber | Offset | Cursor


@dataclass(frozen=True, kw_only=True)
class HttpSource(_Declared):
    """Records of a JSON API behind an Airflow HTTP connection, page by page.

    Login, token headers, certificates and proxies are the connection's. ``{partition}`` in the endpoint and
    in the texts of ``params`` and ``body`` is the partition that is loaded.

    :param conn_id: the Airflow HTTP connection.
    :param endpoint: the path below the connection's host.
    :param params: the query's parameters. ``headers``: further ones (no secrets: use the connection).
    :param method: ``GET``, or ``POST`` with ``body`` as JSON (page parameters go into the body then). It is
        retried, so it must only read.
    :param records: where in the body the list of records is (``data.items``); None: the body is the list.
    :param pagination: :class:`NextLink`, :class:`PageNumber`, :class:`Offset` or :class:`Cursor`; None: one
        page.
    :param max_pages: more are refused: nothing is loaded then.
    :param max_page_bytes: a larger page is refused. One page at a time is in memory.
    :param rate_limit: requests a second, at most, retries among them; of this task, not of all. None: no
        limit.
    :param retries: of one request, after 429, 5xx, a broken connection or a timeout; with exponential backoff
        from ``backoff`` seconds. ``Retry-After`` is honored up to ``max_wait`` seconds.
    :param timeout: seconds without an answer, or without a byte of it.
    :param unknown_fields: fields that the table does not have: ``refuse`` (the default) or ``drop``.
    :param missing_fields: a column that no record has: ``refuse`` (the default) or ``null``.
    :param nested: objects and lists in a column that is not declared ``struct`` or ``list``: ``refuse`` or
        ``json`` (kept as JSON text).

    Example::

        HttpSource(
            conn_id="shop_api",
            endpoint="/v1/orders",
            params={"day": "{partition}"},
            records="data.items",
            pagination=NextLink("links.next"),
        )
    """

    template_fields: ClassVar[tuple[str, ...]] = ("conn_id", "endpoint", "params", "headers", "body")

    conn_id: str
    endpoint: str
    params: Mapping[str, Any] | None = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    method: str = "GET"
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    records: str | None = None
    pagination: Pagination | None = None
    max_pages: int = 10_000
    max_page_bytes: int = 64 << 20
    rate_limit: float | None = None
    retries: int = 5
    backoff: float = 1.0
    max_wait: float = 300.0
    timeout: float = 30.0
    unknown_fields: str = "refuse"
    missing_fields: str = "refuse"
    nested: str = "refuse"


@dataclass(frozen=True, kw_only=True)
class PrefixSource(_Declared):
    """New files under a folder or a prefix of an object store, each one batch in ``append`` mode.

    A file that was loaded is not loaded again; delivered again under its name with another content, it
    replaces what it brought; deleted at the source, what it brought stays.

    :param uri: a folder, or what Airflow's ``ObjectStoragePath`` lists (``s3://bucket/in/``). ``{partition}``
        in it is the partition that is loaded.
    :param conn_id: the Airflow connection of a remote store; None: the scheme's default.
    :param name: put before the files' names, where several prefixes with the same names feed one table.
    :param pattern: of names below the prefix (``*`` crosses ``/``). Names with a part that begins with ``.``
        or ``_`` are left out.
    :param partition_from: a regular expression found in the name, whose first group is the file's partition
        (``r"flights-(\\d{4}-\\d\\d-\\d\\d)"``); None: all files are in the partition of the task.
    :param min_age: seconds or a ``timedelta``: younger files wait for the next run.
    :param max_objects: at most so many new files a run, in the order of their names.
    :param on_bad_object: ``fail`` (the default: nothing is loaded, the error lists every bad file), or
        ``skip`` (the others are loaded; the bad ones are named in the log and tried again by each run).
    :param recheck: read the content of every file again, also of those whose size, time and tag are as they
        were when they were loaded.

    Example::

        PrefixSource(uri="s3://landing/flights/", pattern="*.csv", min_age=60)
    """

    template_fields: ClassVar[tuple[str, ...]] = ("uri", "conn_id", "name", "pattern", "partition_from")

    uri: str
    conn_id: str | None = None
    name: str | None = None
    pattern: str = "*"
    partition_from: str | None = None
    min_age: timedelta | float | None = None
    max_objects: int | None = None
    on_bad_object: str = "fail"
    recheck: bool = False
