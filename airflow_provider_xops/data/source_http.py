"""Records of a paged JSON API into a raw table, once.

For the ingest operator and notebooks::

    orders = HttpSource(conn_id="api", endpoint="/v1/orders", records="items", pagination=NextLink("next"))
    ingest_http(lake, "orders", orders, session=requests.Session(), base_url="https://api.example.com",
                actor=me, as_of=now)

Pages go into a scratch file, one record a line; the file is read under the table's columns, sorted, and the
digest of its rows is the input fingerprint: the same records in another order, on other pages, commit
nothing. Nothing is in the lake before the last page was read.

What it does not do: notice that the API changed its answer while it was paged through. A record that moves to
a later page may be read twice (``keys`` find that) or not at all; where the API can sort by something that
does not change, let it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_xops.data._http_client import Answer, Client, Request, address
from airflow_provider_xops.data._spooling import Ingested, canonical_schema, one_of, spool
from airflow_provider_xops.data.column_types import Declared, declare, text_of
from airflow_provider_xops.data.declared_sources import (
    Cursor,
    HttpSource,
    NextLink,
    Offset,
    PageNumber,
)
from airflow_provider_xops.data.ingest import ALL, load_segments, raw_name, recorded_schema
from airflow_provider_xops.data.sources import infer_schema, open_source
from airflow_provider_xops.errors import ArgumentError, SourceError
from airflow_provider_xops.lake.commit import Segment
from airflow_provider_xops.records import Actor, SourceFile, WriteMode, digest_of

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["ingest_http"]

log = logging.getLogger(__name__)

_MISSING = object()
_INT64 = 1 << 63


def ingest_http(
    lake: Lake,
    table: str,
    source: HttpSource,
    *,
    session: Any,
    base_url: str,
    partitions: Sequence[str] = (ALL,),
    mode: WriteMode | str = WriteMode.REPLACE,
    keys: Sequence[str] = (),
    schema: Mapping[str, str] | None = None,
    batch_id: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
    actor: Actor,
    as_of: datetime,
) -> Ingested:
    """Load an API's records into ``<table>__raw``.

    :param session: a ``requests.Session`` that logs in by itself; it stays the caller's.
    :param base_url: what ``source.endpoint`` is below of.
    :param partitions: the partitions to load; several need ``{partition}`` in endpoint, params or body.
    :param mode, batch_id: as :func:`~airflow_provider_xops.data.ingest.ingest`.
    :param schema: column to type text; None for the recorded one, or at the first load an inferred one.
    :param sleep: waits so many seconds (between retries, and for the rate limit).
    :raises SourceError: the API refuses, its pages go in a circle (``source.page_loop``) or do not end
        (``source.too_many_pages``), a record is not as declared: nothing was loaded.
    :raises UnavailableError: the API did not answer (retryable).
    """
    mode, raw = WriteMode(mode), raw_name(table)
    _check(source, partitions)
    known = dict(schema) if schema is not None else recorded_schema(lake, raw)
    declared = None if known is None else declare(known)
    client = Client(session, base_url, source, sleep=sleep)
    with lake.storage.scratch() as scratch:
        files = {}
        for number, partition in enumerate(partitions):
            first = _first_request(source, base_url, partition)
            path = scratch / f"{number:05d}" / f"{_name(first)}.jsonl"
            path.parent.mkdir()
            pages, records = _write_records(client, source, first, path, declared)
            log.info("Read %d records on %d pages of %s.", records, pages, address(first.url))
            files[partition] = (first, path)
        readers = {name: open_source(str(path), format="jsonl") for name, (_, path) in files.items()}
        if declared is None:
            learned = infer_schema(list(readers.values()))
            if not learned:
                raise ArgumentError(
                    f"the columns of table {raw} are not known", code="argument.schema_needed",
                    why="this is its first load, and the API has no record to learn from",
                    todo="pass a schema",
                )  # fmt: skip
            log.info("Learned the columns of table %s from the API: %s.", raw, json.dumps(learned))
            declared = declare(learned)
        texts, arrow = text_of(declared), canonical_schema(declared)
        segments = []
        for partition, reader in readers.items():
            first, path = files[partition]
            batches = reader.with_schema(texts).reader()
            rows = spool(batches, arrow, scratch, order_by=tuple(keys), subject=address(first.url))
            fingerprint = digest_of(["http", rows.digest, texts, list(keys)])
            name = None if mode is WriteMode.REPLACE else batch_id or f"sources:{fingerprint}"
            file = SourceFile(
                uri=f"{first.url.partition('://')[0]}://{address(first.url)}",
                name=path.stem,
                sha256=rows.digest,
                size_bytes=path.stat().st_size,
            )
            segments.append(Segment(partition, fingerprint, rows.reader, name, (file,)))
        result = load_segments(
            lake,
            raw,
            segments,
            texts=texts,
            mode=mode,
            keys=keys,
            sorted_already=True,
            actor=actor,
            as_of=as_of,
        )
    return Ingested(record=result.record, reused=result.reused, notes={"requests": client.requests})


def _write_records(
    client: Client, source: HttpSource, first: Request, path: Path, declared: Declared | None
) -> tuple[int, int]:
    """All records of all pages into ``path``, one a line; gives the numbers of pages and records."""
    lines = _Lines(source, declared, address(first.url))
    pages = 0
    with path.open("w", encoding="utf-8") as file:
        for records in _pages(client, source, first):
            pages += 1
            for record in records:
                file.write(lines.line(record, pages))
    lines.check_missing()
    return pages, lines.count


def _pages(client: Client, source: HttpSource, first: Request) -> Iterator[list[Any]]:
    """The records of each page, until the last.

    :raises SourceError: ``source.page_loop``, ``source.too_many_pages``.
    """
    where = address(first.url)
    request: Request | None = first
    seen: set[str] = set()
    before, position = "", 0
    numbered = isinstance(source.pagination, PageNumber | Offset)
    for page in range(1, source.max_pages + 2):
        assert request is not None
        if page > source.max_pages:
            raise SourceError(
                f"{where} has more than {source.max_pages} pages", code="source.too_many_pages",
                why="max_pages of the source; nothing was loaded",
                todo="ask for larger pages or fewer records, or raise max_pages",
                context={"pages": source.max_pages},
            )  # fmt: skip
        if request.key in seen:
            raise _loop(where, page, "its next page was read before")
        seen.add(request.key)
        answer = client.fetch(request, missing_ends=numbered and page > 1)
        records = _records(answer, source, where)
        content = digest_of(_dump(records)) if numbered and records else ""
        if content and content == before:
            raise _loop(
                where, page, "two pages in a row have the same records: it may not know the parameter"
            )
        before = content
        yield records
        position += len(records)
        request = _next(client, source, request, answer, page=page, position=position, last=not records)
        if request is None:
            return


def _next(
    client: Client,
    source: HttpSource,
    request: Request,
    answer: Answer,
    *,
    page: int,
    position: int,
    last: bool,
) -> Request | None:
    """The request of the next page; None after the last.

    A numbered page is the last when it has no records: a short one may be the server's own, smaller limit.
    """
    paging = source.pagination
    if isinstance(paging, NextLink):
        link = answer.next_link if paging.path is None else _look_up(answer.body, paging.path)
        return None if _ends(link) else client.follow(request, str(link))
    if isinstance(paging, Cursor):
        token = _look_up(answer.body, paging.path)
        return None if _ends(token) else _with(source, request, {paging.param: token})
    if paging is None or last:
        return None
    number = (
        {paging.param: paging.start + page} if isinstance(paging, PageNumber) else {paging.param: position}
    )
    return _with(source, request, number)


def _ends(found: Any) -> bool:
    return found is None or found is False or found is _MISSING or found == ""


def _records(answer: Answer, source: HttpSource, where: str) -> list[Any]:
    if answer.empty:
        return []
    found = answer.body if source.records is None else _look_up(answer.body, source.records)
    if isinstance(found, list):
        return found
    place = "the body" if source.records is None else f"{source.records!r}"
    raise SourceError(
        f"{where} did not answer with a list of records", code="source.records",
        why=f"there is no {place}" if found is _MISSING else f"{place} is a {type(found).__name__}",
        todo="name in records where the list is, such as 'data.items'",
    )  # fmt: skip


def _look_up(body: Any, path: str) -> Any:
    """What is at ``path``: keys with dots between them; a key that has dots itself is found too."""
    if isinstance(body, dict):
        if path in body:
            return body[path]
        for cut, letter in enumerate(path):
            if letter == "." and path[:cut] in body:
                found = _look_up(body[path[:cut]], path[cut + 1 :])
                if found is not _MISSING:
                    return found
    return _MISSING


class _Lines:
    """Records as JSON lines that have the table's columns."""

    def __init__(self, source: HttpSource, declared: Declared | None, where: str) -> None:
        self.source, self.declared, self.where = source, declared, where
        self.seen: set[str] = set()
        self.count = 0

    def line(self, record: Any, page: int) -> str:
        self.count += 1
        if not isinstance(record, dict):
            raise SourceError(
                f"record {self.count} of {self.where} is no object", code="source.records",
                why=f"it is a {type(record).__name__} (page {page})",
                todo="name in records the list whose entries are objects",
            )  # fmt: skip
        self.seen.update(record)
        if self.declared is not None:
            unknown = [name for name in record if name not in self.declared]
            if unknown and self.source.unknown_fields == "refuse":
                raise SourceError(
                    f"record {self.count} of {self.where} has fields that the table does not have",
                    code="source.columns",
                    why=f"not declared: {', '.join(map(repr, unknown[:20]))} (page {page})",
                    todo="ask the API's owner what changed; unknown_fields='drop' leaves them out",
                    context={"extra": unknown},
                )
            chosen = self.declared if self.source.missing_fields == "null" else record
            record = {name: record.get(name) for name in chosen if name in self.declared}
        return _dump({name: self._plain(name, value, page) for name, value in record.items()}) + "\n"

    def check_missing(self) -> None:
        """:raises SourceError: a column that no record has."""
        missing = [name for name in self.declared or () if name not in self.seen]
        if self.count and missing and self.source.missing_fields == "refuse":
            raise SourceError(
                f"no record of {self.where} has the fields {', '.join(map(repr, missing[:20]))}",
                code="source.columns",
                why="they are columns of the table",
                todo="ask the API's owner what changed; missing_fields='null' takes them as missing values",
                context={"missing": missing},
            )

    def _plain(self, name: str, value: Any, page: int) -> Any:
        if self.declared is None and isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise SourceError(
                f"field {name!r} of record {self.count} of {self.where} is a number of more than 64 bits",
                code="source.types", why=f"a column that is learned would lose digits of it (page {page})",
                todo="pass a schema that declares it as decimal(38,0)", context={"column": name},
            )  # fmt: skip
        if not isinstance(value, dict | list) or (self.declared is not None and self.declared[name].nested):
            return value
        if self.source.nested == "json":
            return _dump(value, as_text=True)
        raise SourceError(
            f"field {name!r} of record {self.count} of {self.where} is nested", code="source.nested",
            why=f"it is a {type(value).__name__} (page {page})",
            todo="declare the column as list<...> or struct<...>, or pass nested='json' to keep it as text",
            context={"column": name},
        )  # fmt: skip


def _dump(value: Any, *, as_text: bool = False) -> str:
    """JSON; decimals, which ``json`` refuses, as the numbers that they are.

    :param as_text: for people: keys sorted, letters as they are.
    """
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=not as_text, sort_keys=as_text)
    except TypeError:
        pass
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(_dump(one, as_text=as_text) for one in value)}]"
    names = sorted(value) if as_text else value
    pairs = (f"{_dump(name, as_text=as_text)}:{_dump(value[name], as_text=as_text)}" for name in names)
    return f"{{{','.join(pairs)}}}"


def _first_request(source: HttpSource, base_url: str, partition: str) -> Request:
    endpoint = source.endpoint.replace("{partition}", quote(partition, safe=""))
    if "://" in endpoint:
        raise ArgumentError(
            "the endpoint has a host of its own", code="argument.endpoint",
            todo="put the host into the connection and the path into endpoint",
        )  # fmt: skip
    url = f"{base_url.rstrip('/')}/{endpoint.lstrip('/')}"
    params = dict(_filled(source.params or {}, partition))
    body = dict(_filled(source.body or {}, partition)) if source.method.upper() == "POST" else None
    request = Request(url=url, params=params, body=body)
    paging = source.pagination
    if isinstance(paging, PageNumber):
        sizes = {paging.size_param: paging.size} if paging.size_param else {}
        return _with(source, request, {paging.param: paging.start, **sizes})
    if isinstance(paging, Offset):
        return _with(source, request, {paging.param: 0, paging.limit_param: paging.limit})
    return request


def _with(source: HttpSource, request: Request, more: Mapping[str, Any]) -> Request:
    if source.method.upper() == "POST":
        return dataclasses.replace(request, body={**(request.body or {}), **more})
    return dataclasses.replace(request, params={**request.params, **more})


def _filled(given: Any, partition: str) -> Any:
    """``given`` with the partition's name in all its texts, however deep."""
    if isinstance(given, str):
        return given.replace("{partition}", partition)
    if isinstance(given, Mapping):
        return {name: _filled(value, partition) for name, value in given.items()}
    return [_filled(one, partition) for one in given] if isinstance(given, list | tuple) else given


def _check(source: HttpSource, partitions: Sequence[str]) -> None:
    """:raises ArgumentError: arguments that cannot be."""
    one_of(source.method.upper(), ("GET", "POST"), argument="method")
    one_of(source.unknown_fields, ("refuse", "drop"), argument="unknown_fields")
    one_of(source.missing_fields, ("refuse", "null"), argument="missing_fields")
    one_of(source.nested, ("refuse", "json"), argument="nested")
    try:
        json.dumps(source.body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            "the body of the HTTP source cannot be sent as JSON", code="argument.body",
            why=type(error).__name__, todo="use texts, numbers, lists and mappings",
        ) from None  # fmt: skip
    asked = [source.endpoint, source.params, source.body]
    if len(partitions) > 1 and _filled(asked, "a") == _filled(asked, "b"):
        raise ArgumentError(
            f"{len(partitions)} partitions would be read from the same address", code="argument.source",
            todo="write {partition} where the partition's name belongs in endpoint, params or body",
        )  # fmt: skip
    above = [source.max_pages, source.max_page_bytes, source.timeout, source.max_wait, source.rate_limit]
    limits = [*(1 if limit is None else limit for limit in above), source.retries, source.backoff]
    if not all(isinstance(limit, int | float) and limit >= 0 for limit in limits) or 0 in above:
        raise ArgumentError(
            "a limit of the HTTP source is not a positive number", code="argument.number",
            todo="correct max_pages, max_page_bytes, rate_limit, retries, backoff, max_wait and timeout",
        )  # fmt: skip


def _name(request: Request) -> str:
    last = address(request.url).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.-]", "_", last)[:80] or "records"


def _loop(where: str, page: int, why: str) -> SourceError:
    return SourceError(
        f"the pages of {where} go in a circle", code="source.page_loop", why=f"{why} (page {page})",
        todo="look at the API's pages and at the source's pagination",
        context={"page": page},
    )  # fmt: skip
