"""How far a growing database table was loaded: the marks of its batches, read from the lake.

For :mod:`airflow_provider_xops.data.source_sql`. A batch of an incremental load is named after its source and
the mark that it begins *above*; up to where it goes stands with its source in the commit. So a mark has one
successor: whoever commits the batch above it first has loaded it, and everybody else finds it done and reads
on from there. Two runs at once, a retry after a lost answer, an orphan that wakes up: none can load a row a
second time.

The marks are those of the *active* files of the table's head: after a restore to an earlier version, loading
goes on from there.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import parse_qs, urlsplit

from airflow_provider_xops.errors import ArgumentError, LakeError, NotFoundError, SourceError
from airflow_provider_xops.lake.history import find_commit, version_record
from airflow_provider_xops.lake.tables import open_table, ref_of, segments_of
from airflow_provider_xops.records import DatasetVersion

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = [
    "Mark",
    "Reached",
    "batch_above",
    "check_kind",
    "decode",
    "encode",
    "lowered",
    "newest_record",
    "reached",
    "text_shapes",
]

Mark = int | Decimal | date | datetime | str

_PREFIX = "sql:"
_ISO = re.compile(r"(\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?)(?:(\.\d+)?(Z|[+-]\d\d:?\d\d)?)")
# Kinds of marks of which the first still means the same when the column has become the second.
_SAME_KIND = {("int", "decimal"), ("decimal", "int"), ("date", "timestamp")}
_LAST_YEAR = 9999


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far one partition was loaded from one source (``mark`` is None: not at all).

    :param version: the table version whose commit got there.
    :param others: names of other incremental sources that the partition was loaded from.
    """

    mark: Mark | None = None
    version: int | None = None
    others: frozenset[str] = frozenset()


def encode(mark: Mark, *, column: str) -> str:
    """A mark as text, with its type.

    :raises SourceError: ``source.watermark_type``: such values do not only grow, or do not compare exactly.

    >>> encode(datetime(2013, 1, 1, tzinfo=UTC), column="at")
    'timestamptz:2013-01-01T00:00:00+00:00'
    """
    year = mark.year if isinstance(mark, date) else int(mark[:4]) if _is_iso(mark) else 0
    if year == _LAST_YEAR:
        raise SourceError(
            f"the highest value of column {column!r} is the end of time", code="source.watermark_type",
            why="it is in the year 9999 or infinite: no later row would ever be above it",
            todo="leave such rows out with a query", context={"column": column},
        )  # fmt: skip
    if isinstance(mark, datetime):
        if mark.tzinfo is None:
            return f"timestamp:{mark.isoformat()}"
        return f"timestamptz:{mark.astimezone(UTC).isoformat()}"
    if isinstance(mark, date):
        return f"date:{mark.isoformat()}"
    if isinstance(mark, int) and not isinstance(mark, bool):
        return f"int:{mark}"
    if isinstance(mark, Decimal) and mark.is_finite():
        return f"decimal:{mark}"
    if _is_iso(mark):
        return f"text:{mark}"
    raise SourceError(
        f"column {column!r} cannot be a watermark", code="source.watermark_type",
        why=f"its highest value is a {type(mark).__name__}"
        + (" that is not a time in ISO form" if isinstance(mark, str) else ""),
        todo="use a column of whole numbers, decimals, dates or timestamps that only grows",
        context={"column": column},
    )  # fmt: skip


def decode(text: str) -> Mark:
    """The mark that :func:`encode` made this text of."""
    kind, _, value = text.partition(":")
    if kind in ("timestamp", "timestamptz"):
        return datetime.fromisoformat(value)
    if kind == "date":
        return date.fromisoformat(value)
    if kind == "int":
        return int(value)
    return Decimal(value) if kind == "decimal" else value


def check_kind(low: Mark | None, high: Mark, *, column: str) -> None:
    """:raises SourceError: ``source.watermark_type``: the marks are not of the kind that they were."""
    if low is None:
        return
    before, now = (encode(mark, column=column).partition(":")[0] for mark in (low, high))
    if before != now and (before, now) not in _SAME_KIND:
        raise SourceError(
            f"the values of column {column!r} are of kind {now}, and were {before}",
            code="source.watermark_type",
            why="what is above the last mark is not known: the two do not compare",
            todo="load the column as it was (a query may cast it), or begin anew with another name",
            context={"column": column},
        )


def text_shapes(mark: str) -> tuple[str, ...]:
    """The LIKE patterns of the texts that sort by time together with ``mark``: all of one form and one zone.

    Texts are compared letter by letter. Parts of seconds may differ in length, but not before a ``Z``, which
    sorts behind digits.

    >>> text_shapes("2013-01-01T10:00:00+00:00")
    ('____-__-__T__:__:__+00:00', '____-__-__T__:__:__._%+00:00')
    >>> text_shapes("2013-01-01 10:00:00.500Z")
    ('____-__-__ __:__:__.___Z',)
    """
    found = _ISO.fullmatch(mark)
    assert found is not None
    whole, part, zone = re.sub(r"\d", "_", found[1]), found[2] or "", found[3] or ""
    if zone == "Z":
        return (whole + re.sub(r"\d", "_", part) + zone,)
    if whole.count(":") < len(("minutes", "seconds")):
        return (whole + zone,)
    fractions = [f"{whole}._%{zone}"] if zone else [f"{whole}.{'_' * digits}" for digits in range(1, 10)]
    return (whole + zone, *fractions)


def lowered(mark: Mark, lag: Any, *, column: str) -> Mark:
    """A mark ``lag`` below ``mark``, of the same type.

    :param lag: a ``timedelta`` for times, a number for numbers.
    :raises ArgumentError: ``argument.lag``: it is the other one.
    """
    lower: Mark
    try:
        if isinstance(mark, str):
            lower = _lowered_text(mark, lag)
        elif isinstance(mark, Decimal):
            lower = mark - Decimal(str(lag))
        elif isinstance(mark, int):
            lower = mark - math.ceil(lag)
        elif isinstance(mark, datetime):
            lower = mark - lag
        else:  # of a date, any part of a day is a day
            lower = mark - timedelta(days=-(-lag // timedelta(days=1)))
    except (TypeError, ArithmeticError):
        raise ArgumentError(
            f"lag is a {type(lag).__name__}, marks of column {column!r} are of type {type(mark).__name__}",
            code="argument.lag",
            todo="pass a timedelta for times, a number for numbers",
        ) from None
    return lower


def batch_above(name: str, mark: Mark | None, *, column: str) -> str:
    """The id of the batch of source ``name`` that begins above ``mark``."""
    return f"{_PREFIX}{name}>{'start' if mark is None else encode(mark, column=column)}"


def reached(lake: Lake, raw: str, partition: str, *, name: str) -> Reached:
    """How far ``partition`` of the table ``raw`` was loaded from the source ``name``."""
    try:
        handle = open_table(lake, raw)
    except NotFoundError:
        return Reached()
    found: Reached | None = None
    others: set[str] = set()
    known: dict[int, dict[str, Any] | None] = {}
    done: set[tuple[str, str]] = set()
    files = [file for file in segments_of(handle) if file.partition == partition]
    # A source's batches follow each other, and so do the first versions that can hold their files.
    for file in sorted(files, key=lambda file: file.since, reverse=True):
        if file.key in done:
            continue
        done.add(file.key)
        version, metadata = find_commit(lake, handle, table=raw, file=file, known=known)
        batch_id = next(
            segment["batch_id"]
            for segment in metadata["segments"]
            if (segment["partition"], segment["batch16"]) == file.key
        )
        if not batch_id.startswith(_PREFIX):
            continue
        source = batch_id.removeprefix(_PREFIX).rpartition(">")[0]
        if source == name:
            found = Reached(mark=_upto(metadata, partition, name, raw), version=version)
            break
        others.add(source)
    return replace(found or Reached(), others=frozenset(others))


def newest_record(lake: Lake, raw: str, versions: list[int]) -> DatasetVersion | None:
    """The record of the highest of ``versions``; written now if a killed attempt left it out."""
    if not versions:
        return None
    handle = open_table(lake, raw)
    record = version_record(lake, replace(ref_of(lake, raw, handle), version=max(versions)))
    lake.evidence.put(record)
    return record


def _upto(metadata: dict[str, Any], partition: str, name: str, raw: str) -> Mark:
    for source in metadata["sources"]:
        told = {key: values[0] for key, values in parse_qs(urlsplit(source["uri"]).query).items()}
        if told.get("source") == name and told.get("partition") == partition and "upto" in told:
            return decode(told["upto"])
    raise LakeError(
        f"the commit of table {raw} does not say how far source {name} was read", code="lake.history_missing",
        why="its metadata were changed", todo="load the source into a new table",
    )  # fmt: skip


def _is_iso(mark: object) -> TypeGuard[str]:
    return isinstance(mark, str) and _ISO.fullmatch(mark) is not None


def _lowered_text(mark: str, lag: timedelta) -> str:
    moment = datetime.fromisoformat(mark) - lag
    if len(mark) == len("2013-01-01"):
        return moment.date().isoformat()
    text = moment.isoformat(sep=mark[10], timespec="microseconds" if "." in mark else "seconds")
    return text.replace("+00:00", "Z") if mark.endswith("Z") else text
