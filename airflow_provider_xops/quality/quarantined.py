"""What is in quarantine: counts for everybody, the rows for who mends them.

For ``xops quarantine list`` and ``export``, and notebooks. It reads and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import (
    QUARANTINE_SUFFIX,
    RAW_SUFFIX,
    RELEASED_SUFFIX,
    base_name,
    check_table_name,
    list_tables,
    own_table,
    ref_of,
    segments_of,
    table_info,
)
from airflow_provider_xops.records import DatasetRef, WriteMode

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["QuarantinedPlace", "list_quarantine", "quarantined_rows_of"]


@dataclass(frozen=True, kw_only=True)
class QuarantinedPlace:
    """One partition with rows in quarantine; in an append table one batch of it.

    :param batch: the batch as its rows name it in ``_xops_batch``; "" where the partition is the place.
    :param reasons: check to rows that broke it; a row that broke several counts for each.
    :param raw: the raw version they were set aside from.
    :param outdated: newer raw data have arrived there; these rows leave as soon as those have passed or were
        parted themselves.
    """

    table: str
    partition: str
    batch: str
    rows: int
    reasons: dict[str, int]
    raw: DatasetRef
    outdated: bool

    def to_json(self) -> dict[str, Any]:
        """The place as plain JSON."""
        return asdict(self)


def list_quarantine(
    lake: Lake, table: str | None = None, *, partition: str | None = None
) -> list[QuarantinedPlace]:
    """What is in quarantine, by table and partition; counts, never values.

    :param table: the published table's name; None: all of them, for which the whole lake is walked.
    :raises NotFoundError: nothing of that table was ever loaded.
    """
    from airflow_provider_xops.quality._quarantine_rows import REASONS, ROW, count_reasons

    if table is None:
        names = [name for name in list_tables(lake) if name.endswith(QUARANTINE_SUFFIX)]
    else:
        names = [_quarantine_of(lake, table)]
    found = []
    for name in names:
        standing = _standing_now(lake, f"{base_name(name)}{RAW_SUFFIX}")
        found += [
            QuarantinedPlace(
                table=base_name(name),
                partition=part.partition,
                batch=part.batch,
                rows=part.rows.num_rows,
                reasons=count_reasons(part.rows.column(REASONS)),
                raw=part.raw,
                outdated=part.origin != standing.get((part.partition, part.batch)),
            )
            for part in _parts(lake, name, partition, (ROW, REASONS))
        ]
    return found


def quarantined_rows_of(lake: Lake, table: str, *, partition: str) -> pa.Table:
    """The rows of one partition that are in quarantine, with our columns: the user's own values.

    :raises NotFoundError: ``not_found.quarantined``: the partition has none.
    """
    import pyarrow as pa

    parts = [part.rows for part in _parts(lake, _quarantine_of(lake, table), partition, None)]
    if not parts:
        raise NotFoundError(
            f"no row of partition {partition} of table {base_name(table)} is in quarantine",
            code="not_found.quarantined", todo="see `xops quarantine list`",
        )  # fmt: skip
    return pa.concat_tables(parts)


@dataclass(frozen=True)
class _Part:
    """The rows of one place that wait in quarantine."""

    partition: str
    batch: str
    raw: DatasetRef
    origin: str
    rows: pa.Table


def _quarantine_of(lake: Lake, table: str) -> str:
    base = base_name(check_table_name(table))
    if own_table(lake, f"{base}{RAW_SUFFIX}") is None:
        raise NotFoundError(
            f"there is no table {base}{RAW_SUFFIX} in the lake at {lake.uri}", code="not_found.table",
            todo="load it first, or correct the name",
        )  # fmt: skip
    return f"{base}{QUARANTINE_SUFFIX}"


def _parts(lake: Lake, name: str, partition: str | None, columns: Sequence[str] | None) -> Iterator[_Part]:
    """The places with rows, each with those that no release has mended (of one that was not finished too)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from airflow_provider_xops.data.places import Mark, said_of
    from airflow_provider_xops.lake.history import find_commit
    from airflow_provider_xops.lake.read import scan
    from airflow_provider_xops.lake.schema import PARTITION_COLUMN
    from airflow_provider_xops.quality._quarantine_rows import BATCH, ORIGIN, RELEASE, ROW
    from airflow_provider_xops.quality._quarantine_way import known_releases, parent_of, release_batch

    def rows_of(handle: Any, table: str, names: Sequence[str] | None) -> pa.Table | None:
        """Both tables are read once, however many places there are."""
        held = {file.partition for file in segments_of(handle) if file.rows} if handle is not None else set()
        wanted = sorted(held if partition is None else held & {partition})
        ref = ref_of(lake, table, handle) if wanted else None
        return (
            scan(lake, ref, partitions=wanted, columns=names, with_partition=True).read_all() if ref else None
        )

    handle, released = own_table(lake, name), f"{base_name(name)}{RELEASED_SUFFIX}"
    rows = rows_of(handle, name, None if columns is None else [*columns, BATCH])
    if rows is None:
        return
    mended = rows_of(own_table(lake, released), released, [ROW, BATCH, ORIGIN, RELEASE])
    commits: dict[int, dict[str, Any] | None] = {}
    places = {file.key: file for file in segments_of(handle) if file.rows}
    for file in places.values():
        if partition not in (None, file.partition):
            continue
        _version, metadata = find_commit(lake, handle, table=name, file=file, known=commits)
        said = said_of(metadata, file)
        batch, mark = str(said["batch_id"]).rpartition("/")[2], Mark.read(said["fingerprint"])
        assert mark is not None  # what was emptied has no rows
        place = (pc.field(PARTITION_COLUMN) == file.partition) & (pc.field(BATCH) == batch)
        mine = rows.filter(place).drop_columns([PARTITION_COLUMN])
        gone = mended.filter(place & (pc.field(ORIGIN) == mark.origin)) if mended is not None else None
        if gone is not None and gone.num_rows:
            known = known_releases(lake, parent_of(metadata, released))
            since = [release_batch(each) not in known for each in gone.column(RELEASE).to_pylist()]
            gone = gone.filter(pa.array(since, pa.bool_()))
            mine = mine.filter(pc.invert(pc.is_in(mine.column(ROW), value_set=gone.column(ROW))))
        if mine.num_rows:
            yield _Part(file.partition, batch, DatasetRef(**metadata["parents"][0]), mark.origin, mine)


def _standing_now(lake: Lake, raw: str) -> dict[tuple[str, str], str]:
    """What stands at the places of the raw table now."""
    from airflow_provider_xops.data.places import places_of

    handle = own_table(lake, raw)
    if handle is None:
        return {}
    info = table_info(handle)
    mode = WriteMode.APPEND if info is not None and info.mode is WriteMode.APPEND else WriteMode.REPLACE
    uuid = handle.metadata().id
    return {place.name: f"{uuid}/{place.content}" for place in places_of(segments_of(handle), mode)}
